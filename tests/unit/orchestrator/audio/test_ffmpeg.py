"""Probing and converting uploads with the ffmpeg on PATH, if available, and the wheel's."""

import asyncio
import sys
import time
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from orchestrator.audio.cutting import cut_window
from orchestrator.audio.ffmpeg import find_ffmpeg
from orchestrator.audio.probing import has_audio
from orchestrator.audio.window import Window
from orchestrator.errors import ConversionError, FfmpegMissingError, NotAudioError
from tests.support import tracks
from tests.support.conversions import cut, rejection
from tests.support.signals import RATE, SEGMENT, decoded, encoded, tones
from tests.support.tracks import KINDS, SECONDS, make_endless_wav

COVERED = ["cbr.mp3", "edit_list.m4a", "48_khz.flac"]

pytestmark = pytest.mark.usefixtures("ffmpeg")


async def test_the_wav_has_the_format_that_the_model_reads(
    track: Callable[[str], Path], target: Path
) -> None:
    await cut(track("vorbis.ogg"), 10, target)
    with wave.open(str(target)) as wav:
        assert wav.getparams()[:4] == (1, 2, RATE, SEGMENT)
    assert target.stat().st_size == 44 + 2 * SEGMENT
    content = target.read_bytes()
    sizes = [int.from_bytes(content[at : at + 4], "little") for at in (4, 40)]
    assert sizes == [len(content) - 8, 2 * SEGMENT]


@pytest.mark.parametrize(
    ("start", "seconds", "frames"),
    [(3, 0.5, 12_000), (3, 100, SEGMENT), (SECONDS - 2, 16, 2 * RATE), (0, 1e300, SEGMENT)],
)
async def test_a_window_has_the_requested_length_up_to_16_s(
    track: Callable[[str], Path], target: Path, start: float, seconds: float, frames: int
) -> None:
    assert len(await cut(track("stereo.wav"), start, target, seconds)) == frames


async def test_channels_are_mixed_to_mono(tmp_path: Path, target: Path) -> None:
    left, right = tones(2 * RATE, 440), tones(2 * RATE, 1000)
    source = tmp_path / "stereo.wav"
    source.write_bytes(encoded(np.stack([left, right], axis=1)))
    np.testing.assert_allclose(await cut(source, 0, target), (left + right) / 2, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
async def test_audio_is_found_in_every_kind_of_track(
    track: Callable[[str], Path], kind: str
) -> None:
    assert await has_audio(track(kind))


@pytest.mark.parametrize("kind", COVERED)
async def test_cover_art_does_not_affect_the_audio(
    track: Callable[[str], Path], kind: str, tmp_path: Path, target: Path
) -> None:
    covered = tmp_path / f"covered{Path(kind).suffix}"
    picture = tmp_path / "picture.jpg"
    tracks.ffmpeg("-f", "lavfi", "-i", "testsrc=size=640x640", "-frames:v", "1", picture)
    art = ("-map", "0", "-map", "1", "-c", "copy", "-disposition:v", "attached_pic")
    tracks.ffmpeg("-i", track(kind), "-i", picture, *art, covered)
    assert await has_audio(covered)
    plain = await cut(track(kind), 20, target)
    np.testing.assert_allclose(await cut(covered, 20, target), plain, atol=0.02)


def junk(folder: Path) -> dict[str, Path]:
    """Files that contain no audio, by name."""
    contents = {
        "empty.mp3": b"",
        "text.mp3": b"plain text, no audio at all\n" * 4000,
        "text.ogg": b"plain text, no audio at all\n" * 4000,
        "zeros.mp3": bytes(2**20),
        "random.mp3": np.random.default_rng(0).bytes(2**20),
        "header_alone.wav": encoded(tones(100, 440))[:40],
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    picture = ("-f", "lavfi", "-i", "testsrc=size=64x64:duration=1")
    tracks.ffmpeg(*picture, "-c:v", "mpeg4", "-f", "mp4", folder / "video.m4a")
    tracks.ffmpeg(*picture, "-frames:v", "1", "-c:v", "mjpeg", "-f", "mjpeg", folder / "jpeg.mp3")
    return {name: folder / name for name in (*contents, "video.m4a", "jpeg.mp3")}


async def test_files_without_audio_are_rejected(tmp_path: Path, target: Path) -> None:
    for name, source in junk(tmp_path).items():
        assert not await has_audio(source), name
        error = await rejection(NotAudioError, source, target, 3)
        assert name in str(error)
        assert error.code == "not_audio"


async def test_probing_a_50_mb_file_is_fast(tmp_path: Path) -> None:
    source = make_endless_wav(tmp_path / "large.wav", 50 * 2**20)
    began = time.monotonic()
    assert await has_audio(source)
    assert time.monotonic() - began < 1


async def test_an_m4a_without_its_index_is_rejected(
    track: Callable[[str], Path], tmp_path: Path, target: Path
) -> None:
    content = track("edit_list.m4a").read_bytes()
    half = tmp_path / "half.m4a"
    half.write_bytes(content[: len(content) // 2])
    assert not await has_audio(half)
    await rejection(NotAudioError, half, target)


async def test_a_missing_file_is_not_reported_as_not_audio(tmp_path: Path, target: Path) -> None:
    for source in (tmp_path / "missing.mp3", tmp_path):
        with pytest.raises(ConversionError, match="cannot be read"):
            await has_audio(source)
        with pytest.raises(ConversionError):
            await cut(source, 0, target)


async def test_no_file_remains_if_the_target_cannot_be_written(
    track: Callable[[str], Path], tmp_path: Path, target: Path
) -> None:
    target.mkdir()
    for path in (target, tmp_path / "no directory" / "track1.wav"):
        with pytest.raises(ConversionError, match=r"track1\.wav cannot be written"):
            await cut_window(track("cbr.mp3"), Window(0, 16), path)
    assert list(target.parent.iterdir()) == [target]


async def test_concurrent_conversions_do_not_affect_each_other(
    track: Callable[[str], Path], target: Path
) -> None:
    kinds = ["cbr.mp3", "vorbis.ogg"]
    targets = [target.with_name(f"{kind}.wav") for kind in kinds]
    pairs = zip(kinds, targets, strict=True)
    await asyncio.gather(*(cut_window(track(kind), Window(30, 46), each) for kind, each in pairs))
    together = [decoded(each.read_bytes()) for each in targets]
    for each in targets:
        each.unlink()
    for kind, sound in zip(kinds, together, strict=True):
        np.testing.assert_array_equal(sound, await cut(track(kind), 30, target))


def test_a_missing_ffmpeg_is_reported_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(FfmpegMissingError, match=r"needs ffmpeg.*imageio-ffmpeg"):
        find_ffmpeg()


def test_without_the_wheel_ffmpeg_is_found_on_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = tmp_path / "ffmpeg"
    own.write_text("")
    own.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    assert find_ffmpeg() == own
