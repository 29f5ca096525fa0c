"""A window is cut at the right position, even from damaged, chained or truncated tracks."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from orchestrator.audio import cutting, ffmpeg
from orchestrator.audio.seeking import SEEK_AFTER_S
from orchestrator.errors import WindowPastEndError
from tests.support import tracks
from tests.support.conversions import assert_aligned, cut, rejection
from tests.support.signals import RATE, SEGMENT
from tests.support.tracks import KINDS, SECONDS, full_decode, lag, make_track

READABLE_IF_TRUNCATED = ["vbr.mp3", "fragments.m4a", "stereo.wav", "48_khz.flac", "vorbis.ogg"]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ffmpeg")]


@pytest.fixture(scope="module")
def long_track(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A track of seven minutes whose header states no length."""
    sound = tracks.varying_noise(420)
    return make_track(tmp_path_factory.mktemp("long"), "vbr_without_xing.mp3", sound)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_window_matches_a_full_decode(
    ffmpeg: Path, track: Callable[[str], Path], kind: str, target: Path
) -> None:
    whole = full_decode(ffmpeg, track(kind))
    assert len(whole) / RATE == pytest.approx(SECONDS, abs=0.1)
    for start in (0, SEEK_AFTER_S, SEEK_AFTER_S + 0.01, 33.125, SECONDS - 16):
        sound = await cut(track(kind), start, target)
        assert len(sound) == pytest.approx(min(SEGMENT, len(whole) - start * RATE), abs=2)
        assert_aligned(whole, sound, start)


@pytest.mark.parametrize("kind", KINDS)
async def test_only_the_window_is_decoded(
    track: Callable[[str], Path], kind: str, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, decoded_samples = ffmpeg._read_samples, []

    async def recording(skipped: int, wanted: int, stream: asyncio.StreamReader) -> ffmpeg.Decoded:
        decoded = await read(skipped, wanted, stream)
        decoded_samples.append(decoded.samples)
        return decoded

    monkeypatch.setattr(ffmpeg, "_read_samples", recording)
    await cut(track(kind), 33.125, target)
    assert decoded_samples == [pytest.approx(SEGMENT, abs=2)]


DAMAGED = ["edit_list.m4a", "48_khz.flac", "vorbis.ogg", "opus.ogg"]


@pytest.mark.parametrize("kind", DAMAGED)
async def test_damage_before_a_window_does_not_move_it(
    ffmpeg: Path, track: Callable[[str], Path], kind: str, tmp_path: Path, target: Path
) -> None:
    content = bytearray(track(kind).read_bytes())
    for at in range(len(content) // 10, len(content) // 3, len(content) // 50):
        content[at : at + 8] = bytes(8)
    damaged = tmp_path / kind
    damaged.write_bytes(content)
    whole = full_decode(ffmpeg, track(kind))
    assert len(full_decode(ffmpeg, damaged)) < len(whole) - RATE // 20, "nothing was lost"
    assert_aligned(whole, await cut(damaged, 33.125, target), 33.125)


def several_streams(folder: Path, track: Callable[[str], Path]) -> dict[str, Path]:
    """Tracks in which seeking would find the wrong position, by name."""
    video = ("-f", "lavfi", "-i", f"testsrc=size=64x64:rate=10:duration={SECONDS}")
    sound = ("-itsoffset", "0.7", "-i", track("edit_list.m4a"), "-map", "0", "-map", "1")
    tracks.ffmpeg(*video, *sound, "-c:v", "mpeg4", "-c:a", "aac", "-f", "mp4", folder / "video.m4a")
    for kind in ("vorbis.ogg", "48_khz.flac"):
        (folder / kind).write_bytes(2 * track(kind).read_bytes())
    return {name: folder / name for name in ("video.m4a", "vorbis.ogg", "48_khz.flac")}


async def test_a_track_of_several_streams_is_decoded_without_seeking(
    ffmpeg: Path, track: Callable[[str], Path], tmp_path: Path, target: Path
) -> None:
    for name, source in several_streams(tmp_path, track).items():
        whole = full_decode(ffmpeg, source)
        for start in (33.125, len(whole) / RATE - 20):
            sound = await cut(source, start, target)
            assert len(sound) == SEGMENT, name
            assert_aligned(whole, sound, start)
    chained = full_decode(ffmpeg, tmp_path / "vorbis.ogg")
    assert len(chained) / RATE == pytest.approx(2 * SECONDS, abs=0.1)
    assert_aligned(chained, await cut(tmp_path / "vorbis.ogg", SECONDS - 8, target), SECONDS - 8)


async def test_a_late_window_of_a_long_track_is_found_by_seeking(
    ffmpeg: Path, long_track: Path, target: Path
) -> None:
    source = long_track
    lag_s, similarity, _ = lag(full_decode(ffmpeg, source), await cut(source, 391.5, target), 391.5)
    assert abs(lag_s) < 0.001
    assert similarity > 0.9
    target.unlink()
    error = await rejection(WindowPastEndError, source, target, 430)
    assert error.length == pytest.approx(420, abs=0.1)


@pytest.mark.parametrize("kind", [*READABLE_IF_TRUNCATED, "edit_list.m4a"])
async def test_the_error_for_a_window_past_the_end_states_the_true_length(
    ffmpeg: Path, track: Callable[[str], Path], kind: str, target: Path
) -> None:
    length = len(full_decode(ffmpeg, track(kind))) / RATE
    error = await rejection(WindowPastEndError, track(kind), target, 889)
    assert error.length == pytest.approx(length, abs=0.001)
    assert f"is {length:.2f} s long" in str(error)
    assert error.code == "window_past_end"


@pytest.mark.parametrize("start", [SECONDS, 300, 301, 1e300])
async def test_a_track_ends_with_its_last_sample(
    track: Callable[[str], Path], target: Path, start: float
) -> None:
    assert (
        await rejection(WindowPastEndError, track("stereo.wav"), target, start)
    ).length == SECONDS
    assert len(await cut(track("stereo.wav"), SECONDS - 0.5, target)) == RATE / 2


@pytest.mark.parametrize("kind", READABLE_IF_TRUNCATED)
@pytest.mark.parametrize("seeking_after", [2, 300])
async def test_a_truncated_track_still_provides_its_remaining_windows(
    track: Callable[[str], Path],
    kind: str,
    seeking_after: float,
    tmp_path: Path,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cutting, "SEEK_AFTER_S", seeking_after)
    content = track(kind).read_bytes()
    half = tmp_path / kind
    half.write_bytes(content[: len(content) // 2])
    sound = await cut(half, 5, target)
    np.testing.assert_allclose(sound, await cut(track(kind), 5, target), atol=1e-3)
    target.unlink()
    error = await rejection(WindowPastEndError, half, target, SECONDS - 5)
    assert SECONDS * 0.2 < error.length < SECONDS - 5
    assert 0 < len(await cut(half, error.length - 3, target)) <= 3 * RATE + 1
