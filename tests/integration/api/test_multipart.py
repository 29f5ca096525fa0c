"""Multipart forms, byte for byte as various clients send them."""

import pytest

from orchestrator.settings import Settings
from tests.support.api import api, status_and_code
from tests.support.cache import entries
from tests.support.signals import RATE, encoded, noise

SOUND = encoded(noise(RATE, 1))


async def post_check(settings: Settings, body: bytes, kind: str) -> tuple[int, str, str]:
    """Posts a check of track1; returns the status, the error code and the error detail."""
    async with api(settings) as client:
        sent = await client.post("/api/check/track1", data=body, headers={"Content-Type": kind})
        if sent.status == 200:
            return 200, "", ""
        return *await status_and_code(sent), (await sent.json())["detail"]


@pytest.mark.parametrize(
    ("kind", "boundary"),
    [
        (
            "multipart/form-data; boundary=----WebKitFormBoundary7MA",
            "----WebKitFormBoundary7MA",
        ),
        ("multipart/form-data; boundary=----=_Part_1_2.3", "----=_Part_1_2.3"),
        ('Multipart/Form-Data; charset=utf-8; Boundary="a b:c"', "a b:c"),
        ("multipart/form-data;boundary=" + "x" * 70, "x" * 70),
    ],
)
@pytest.mark.parametrize("end", [b"--\r\n", b"--", b"--\r\nan epilogue\r\n"])
async def test_valid_boundaries_are_accepted(
    settings: Settings, kind: str, boundary: str, end: bytes
) -> None:
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="track1"; filename="a.wav"\r\n'
    form = head.encode() + b"Content-Type: audio/wav\r\n\r\n" + SOUND
    assert await post_check(settings, form + f"\r\n--{boundary}".encode() + end, kind) == (
        200,
        "",
        "",
    )


@pytest.mark.parametrize("boundary", ["", "x" * 71])
async def test_an_invalid_boundary_is_rejected(settings: Settings, boundary: str) -> None:
    kind = f"multipart/form-data; boundary={boundary}"
    status, code, detail = await post_check(settings, f"--{boundary}--".encode(), kind)
    assert (status, code) == (400, "malformed_form")
    assert f"a boundary of {len(boundary)} characters; it must have 1 to 70" in detail


@pytest.mark.parametrize(
    "disposition",
    [
        b'form-data; name="track1"; filename="a.wav"',
        b"form-data; name=track1; filename=a.wav",
        'form-data; name="track1"; filename="M\u00fcsik \u97f3.wav"'.encode(),
        b'form-data; name="track1"; filename="M\xfcsik.wav"',
        b"form-data; name=\"track1\"; filename*=utf-8''M%C3%BCsik.wav",
        b'form-data; name="track1"; filename="a \\"b\\" c.wav"',
        b'form-data; name="track1"; filename="a %22b%22;c.wav"',
        b'form-data; name="track1"; filename="C:\\music\\a.wav"',
    ],
)
async def test_file_names_are_accepted_in_any_notation(
    settings: Settings, disposition: bytes
) -> None:
    form = b"--x\r\ncontent-disposition: " + disposition + b"\r\n\r\n" + SOUND + b"\r\n--x--\r\n"
    assert await post_check(settings, form, "multipart/form-data; boundary=x") == (200, "", "")


@pytest.mark.parametrize(
    "disposition",
    [b'attachment; name="track1"', b'form-data; filename="a.wav"', b"form-data", b"", b"\xff"],
)
async def test_an_invalid_part_is_rejected(settings: Settings, disposition: bytes) -> None:
    form = b"--x\r\nContent-Disposition: " + disposition + b"\r\n\r\n" + SOUND + b"\r\n--x--\r\n"
    status, code, _ = await post_check(settings, form, "multipart/form-data; boundary=x")
    assert (status, code) == (400, "malformed_form")


def part(name: str, content: bytes) -> bytes:
    head = f'--abc\r\nContent-Disposition: form-data; name="{name}"; filename="x.wav"\r\n\r\n'
    return head.encode() + content


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "malformed_form"),
        (b"no form at all", "malformed_form"),
        (b"--abc\r\nContent-Disp", "malformed_form"),
        (part("track1", SOUND) + b"\r\n" + part("track2", SOUND[:20_000]), "malformed_form"),
        (b"--abc--\r\n", "missing_field"),
        (
            part("track1", SOUND) + b"\r\n" + part("track1", SOUND) + b"\r\n--abc--",
            "repeated_field",
        ),
    ],
    ids=["empty", "not a form", "cut header", "cut track", "no parts", "repeated"],
)
async def test_a_broken_form_is_rejected_and_leaves_no_files(
    settings: Settings, body: bytes, code: str
) -> None:
    async with api(settings) as client:
        kind = {"Content-Type": "multipart/form-data; boundary=abc"}
        rejected = await client.post("/api/generate", data=body, headers=kind)
        assert (rejected.status, (await rejected.json())["code"]) == (400, code)
        assert entries(settings.cache) == []
