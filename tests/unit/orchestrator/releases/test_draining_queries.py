"""Who still uses a version of the model, asked of whatever is at an orchestrator's address."""

import json
import time
from threading import Event

import pytest

from orchestrator.releases import draining
from orchestrator.releases.draining import users_of
from tests.support.ports import free_ports
from tests.support.quick_torchserve import answering

HTML = b"<!DOCTYPE html>\n<html><head><title>Home</title></head><body>a = 1\n</body></html>\n"


def asked(status: int, body: bytes) -> list[str]:
    """Who uses "old" where this is answered, the address left out."""
    with answering(lambda method, path: (status, body) if path == "/in-flight" else None) as url:
        return [user.replace(url, "URL") for user in users_of(url, "old")]


def told(in_flight: int, pinned: int | None = 0, database: bool = True) -> bytes:
    """What an orchestrator answers, which uses "new", too."""
    versions = {"new": {"in_flight": 7, "pinned": 7 if database else None}}
    if in_flight or pinned:
        versions["old"] = {"in_flight": in_flight, "pinned": pinned}
    return json.dumps({"database": database, "model_versions": versions}).encode()


def test_nobody_uses_it() -> None:
    assert asked(200, told(0)) == []


def test_requests_are_at_work_and_jobs_wait() -> None:
    assert asked(200, told(2, 3)) == [
        "2 requests are at work at URL",
        "3 jobs asked for it by name at URL",
    ]


def test_without_its_database_nobody_knows() -> None:
    unknown = "URL does not know who asked for it by name: its database is away"
    assert asked(200, told(0, None, database=False)) == [unknown]
    assert asked(200, told(2, None, database=False)) == ["2 requests are at work at URL", unknown]


def test_an_orchestrator_of_an_earlier_version_is_a_user() -> None:
    assert asked(404, b'{"detail": "There is nothing at /in-flight", "code": "not_found"}') == [
        "URL does not say who uses it: it is an earlier version of MusicLab, or a proxy that hides "
        "/in-flight"
    ]


@pytest.mark.parametrize("status", [500, 503])
def test_an_orchestrator_that_cannot_say_is_a_user(status: int) -> None:
    assert asked(status, b'{"code": "busy"}') == [f"URL does not say who uses it: {status}"]


def test_an_orchestrator_that_hangs_is_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining, "TIMEOUT_S", 0.05)
    over = Event()
    with answering(lambda method, path: (200, b"") if over.wait(10) else None) as url:
        (user,) = users_of(url, "old")
        over.set()
    assert user.startswith(f"{url} does not say who uses it: ")
    assert "timed out" in user


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(200, HTML, id="HTML"),
        pytest.param(404, HTML, id="HTML 404"),
        pytest.param(404, b'{"detail": "Not Found"}', id="JSON"),
        pytest.param(200, b"", id="nothing"),
        pytest.param(200, b"\x89PNG\r\n\x1a\n\x00", id="an image"),
        pytest.param(404, b'{"code": 404}', id="JSON with another code"),
        pytest.param(400, b'{"code": "not_found"}', id="another status"),
        pytest.param(200, b'{"status": "ok"}', id="JSON 200"),
        pytest.param(200, b'{"model_versions": ["old"]}', id="other versions"),
        pytest.param(200, b'{"model_versions": {"old": 1}}', id="other versions by name"),
        pytest.param(
            200, b'{"database": true, "model_versions": {"old": 1}}', id="versions by number"
        ),
        pytest.param(200, b'["old"]', id="a list"),
        pytest.param(200, b"# TYPE up gauge\nup 1\n", id="metrics of another program"),
    ],
)
def test_another_program_on_the_port_is_no_user(status: int, body: bytes) -> None:
    assert asked(status, body) == []


def test_nobody_is_there() -> None:
    (port,) = free_ports(1)
    began = time.monotonic()
    assert users_of(f"http://127.0.0.1:{port}", "old") == []
    assert time.monotonic() - began < draining.TIMEOUT_S


def test_an_address_that_is_none_is_told() -> None:
    (user,) = users_of("orchestrator", "old")
    assert user.startswith("orchestrator does not say who uses it: Invalid URL")
