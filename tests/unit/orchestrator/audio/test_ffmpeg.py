"""Probing and converting uploads with real ffmpegs: the one on PATH, if any, and the wheel's."""

import asyncio
import itertools
import os
import shutil
import socket
import subprocess
import sys
import time
import wave
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import psutil
import pytest

from orchestrator.audio import ffmpeg as module
from orchestrator.audio import sandbox
from orchestrator.audio.ffmpeg import convert, find_ffmpeg, has_audio
from orchestrator.audio.sandbox import AT_ONCE, Purpose
from orchestrator.audio.seeking import SEEK_AFTER_S
from orchestrator.audio.window import Window
from orchestrator.errors import (
    ConversionError,
    FfmpegMissingError,
    NotAudioError,
    TooSlowError,
    TrackError,
    WindowPastEndError,
)
from orchestrator.settings import PROJECT
from tests.support import tracks
from tests.support.hostile_mp4 import crafted_mp4
from tests.support.signals import RATE, SEGMENT, Samples, decoded, encoded, tones
from tests.support.tracks import KINDS, SECONDS, full_decode, lag, make_endless_wav, make_track

FFMPEGS = [*(["path"] if shutil.which("ffmpeg") else []), "wheel"]
Refusal = TypeVar("Refusal", bound=TrackError)
CUTTABLE = ["vbr.mp3", "fragments.m4a", "stereo.wav", "48_khz.flac", "vorbis.ogg"]
LATE = Window(200_000, 200_016)
COVERED = ["cbr.mp3", "edit_list.m4a", "48_khz.flac"]


@pytest.fixture(params=FFMPEGS, autouse=True)
def ffmpeg(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if request.param == "wheel":
        monkeypatch.delenv("IMAGEIO_FFMPEG_EXE", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
        assert "imageio_ffmpeg" in str(find_ffmpeg())
    else:
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "ffmpeg")
        assert "imageio_ffmpeg" not in str(find_ffmpeg())
    return find_ffmpeg()


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes a track of a kind, once."""
    folder = tmp_path_factory.mktemp("tracks")
    sound = tracks.restless_noise(SECONDS)
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            made[kind] = make_track(folder, kind, sound)
        return made[kind]

    return make


@pytest.fixture(scope="module")
def long_track(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven minutes; its header states no length."""
    sound = tracks.restless_noise(420)
    return make_track(tmp_path_factory.mktemp("long"), "vbr_without_xing.mp3", sound)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A file in a folder with nothing else in it."""
    folder = tmp_path / "job"
    folder.mkdir()
    return folder / "track1.wav"


@pytest.fixture
def endless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A track that takes minutes to decode up to its window."""
    monkeypatch.setattr(module, "SEEK_AFTER_S", 1e9)
    return make_endless_wav(tmp_path / "endless.wav")


def cut(source: Path, start: float, target: Path, seconds: float = 16) -> Samples:
    wav = asyncio.run(convert(source, Window(start, start + seconds), target))
    assert list(target.parent.iterdir()) == [target]
    assert target.read_bytes() == wav
    return decoded(wav)


def refusal(kind: type[Refusal], source: Path, target: Path, start: float = 0) -> Refusal:
    """The error of a conversion that leaves nothing behind."""
    with pytest.raises(kind) as caught:
        asyncio.run(convert(source, Window(start, start + 16), target))
    assert type(caught.value) is kind
    assert not any(target.parent.iterdir())
    assert str(source.parent) not in str(caught.value)
    return caught.value


def children() -> list[psutil.Process]:
    """The running ffmpegs of this process, which may have started servers as well."""
    return [child for child in psutil.Process().children() if "ffmpeg" in child.name()]


@pytest.mark.parametrize("kind", KINDS)
def test_a_window_starts_where_a_full_decode_puts_it(
    ffmpeg: Path, track: Callable[[str], Path], kind: str, target: Path
) -> None:
    whole = full_decode(ffmpeg, track(kind))
    assert len(whole) / RATE == pytest.approx(SECONDS, abs=0.1)
    for start in (0, SEEK_AFTER_S, SEEK_AFTER_S + 0.01, 33.125, SECONDS - 16):
        sound = cut(track(kind), start, target)
        assert len(sound) == pytest.approx(min(SEGMENT, len(whole) - start * RATE), abs=2)
        lies_right(whole, sound, start)


def lies_right(whole: Samples, sound: Samples, start: float) -> None:
    later, alike, alike_at_first = lag(whole, sound, start)
    assert abs(later) < 0.001, (start, later)  # 0.025 is promised
    assert alike > 0.9 and alike_at_first > 0.9, (start, alike, alike_at_first)


@pytest.mark.parametrize("kind", KINDS)
def test_no_more_is_decoded_than_the_window(
    track: Callable[[str], Path], kind: str, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, decoded_samples = module._read_samples, []

    async def noting(skipped: int, wanted: int, stream: asyncio.StreamReader) -> module._Decoded:
        decoded = await read(skipped, wanted, stream)
        decoded_samples.append(decoded.samples)
        return decoded

    monkeypatch.setattr(module, "_read_samples", noting)
    cut(track(kind), 33.125, target)
    assert decoded_samples == [pytest.approx(SEGMENT, abs=2)]


DAMAGED = ["edit_list.m4a", "48_khz.flac", "vorbis.ogg", "opus.ogg"]


@pytest.mark.parametrize("kind", DAMAGED)
def test_damage_before_a_window_does_not_move_it(
    ffmpeg: Path, track: Callable[[str], Path], kind: str, tmp_path: Path, target: Path
) -> None:
    content = bytearray(track(kind).read_bytes())
    for at in range(len(content) // 10, len(content) // 3, len(content) // 50):
        content[at : at + 8] = bytes(8)
    damaged = tmp_path / kind
    damaged.write_bytes(content)
    whole = full_decode(ffmpeg, track(kind))
    assert len(full_decode(ffmpeg, damaged)) < len(whole) - RATE // 20, "nothing was lost"
    lies_right(whole, cut(damaged, 33.125, target), 33.125)


def several_streams(folder: Path, track: Callable[[str], Path]) -> dict[str, Path]:
    """Tracks in which seeking would go wrong, by what they are."""
    video = ("-f", "lavfi", "-i", f"testsrc=size=64x64:rate=10:duration={SECONDS}")
    sound = ("-itsoffset", "0.7", "-i", track("edit_list.m4a"), "-map", "0", "-map", "1")
    tracks.ffmpeg(*video, *sound, "-c:v", "mpeg4", "-c:a", "aac", "-f", "mp4", folder / "video.m4a")
    for kind in ("vorbis.ogg", "48_khz.flac"):
        (folder / kind).write_bytes(2 * track(kind).read_bytes())
    return {name: folder / name for name in ("video.m4a", "vorbis.ogg", "48_khz.flac")}


def test_a_track_of_several_streams_is_not_sought_in(
    ffmpeg: Path, track: Callable[[str], Path], tmp_path: Path, target: Path
) -> None:
    for name, source in several_streams(tmp_path, track).items():
        whole = full_decode(ffmpeg, source)
        for start in (33.125, len(whole) / RATE - 20):
            sound = cut(source, start, target)
            assert len(sound) == SEGMENT, name
            lies_right(whole, sound, start)
    chained = full_decode(ffmpeg, tmp_path / "vorbis.ogg")
    assert len(chained) / RATE == pytest.approx(2 * SECONDS, abs=0.1)
    lies_right(chained, cut(tmp_path / "vorbis.ogg", SECONDS - 8, target), SECONDS - 8)


def test_a_late_window_of_a_long_track_is_found_by_seeking(
    ffmpeg: Path, long_track: Path, target: Path
) -> None:
    source = long_track
    later, alike, _ = lag(full_decode(ffmpeg, source), cut(source, 391.5, target), 391.5)
    assert abs(later) < 0.001
    assert alike > 0.9
    target.unlink()
    error = refusal(WindowPastEndError, source, target, 430)
    assert error.length == pytest.approx(420, abs=0.1)


def test_the_wav_is_what_the_model_reads(track: Callable[[str], Path], target: Path) -> None:
    cut(track("vorbis.ogg"), 10, target)
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
def test_a_window_is_as_long_as_asked_for_and_16_s_at_most(
    track: Callable[[str], Path], target: Path, start: float, seconds: float, frames: int
) -> None:
    assert len(cut(track("stereo.wav"), start, target, seconds)) == frames


def test_channels_are_mixed_into_one(tmp_path: Path, target: Path) -> None:
    left, right = tones(2 * RATE, 440), tones(2 * RATE, 1000)
    source = tmp_path / "stereo.wav"
    source.write_bytes(encoded(np.stack([left, right], axis=1)))
    np.testing.assert_allclose(cut(source, 0, target), (left + right) / 2, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_tracks_have_audio(track: Callable[[str], Path], kind: str) -> None:
    assert asyncio.run(has_audio(track(kind)))


@pytest.mark.parametrize("kind", COVERED)
def test_cover_art_changes_nothing(
    track: Callable[[str], Path], kind: str, tmp_path: Path, target: Path
) -> None:
    covered = tmp_path / f"covered{Path(kind).suffix}"
    picture = tmp_path / "picture.jpg"
    tracks.ffmpeg("-f", "lavfi", "-i", "testsrc=size=640x640", "-frames:v", "1", picture)
    art = ("-map", "0", "-map", "1", "-c", "copy", "-disposition:v", "attached_pic")
    tracks.ffmpeg("-i", track(kind), "-i", picture, *art, covered)
    assert asyncio.run(has_audio(covered))
    plain = cut(track(kind), 20, target)
    np.testing.assert_allclose(cut(covered, 20, target), plain, atol=0.02)


def junk(folder: Path) -> dict[str, Path]:
    """Files that hold no audio, by what they are."""
    contents = {
        "empty.mp3": b"",
        "text.mp3": b"la la la, said the text\n" * 4000,
        "text.ogg": b"la la la, said the text\n" * 4000,
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


def test_what_is_no_audio_is_refused(tmp_path: Path, target: Path) -> None:
    for name, source in junk(tmp_path).items():
        assert not asyncio.run(has_audio(source)), name
        error = refusal(NotAudioError, source, target, 3)
        assert name in str(error)
        assert error.code == "not_audio"


def test_probing_a_file_of_50_mb_is_quick(tmp_path: Path) -> None:
    source = make_endless_wav(tmp_path / "large.wav", 50 * 2**20)
    began = time.monotonic()
    assert asyncio.run(has_audio(source))
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("kind", [*CUTTABLE, "edit_list.m4a"])
def test_a_window_past_the_end_is_told_the_true_length(
    ffmpeg: Path, track: Callable[[str], Path], kind: str, target: Path
) -> None:
    length = len(full_decode(ffmpeg, track(kind))) / RATE
    error = refusal(WindowPastEndError, track(kind), target, 889)
    assert error.length == pytest.approx(length, abs=0.001)
    assert f"at {length:.2f} s" in str(error)
    assert error.code == "window_past_end"


@pytest.mark.parametrize("start", [SECONDS, 300, 301, 1e300])
def test_the_end_is_where_the_last_sample_is(
    track: Callable[[str], Path], target: Path, start: float
) -> None:
    assert refusal(WindowPastEndError, track("stereo.wav"), target, start).length == SECONDS
    assert len(cut(track("stereo.wav"), SECONDS - 0.5, target)) == RATE / 2


@pytest.mark.parametrize("kind", CUTTABLE)
@pytest.mark.parametrize("seeking_after", [2, 300])
def test_a_track_cut_in_half_serves_the_windows_it_still_holds(
    track: Callable[[str], Path],
    kind: str,
    seeking_after: float,
    tmp_path: Path,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SEEK_AFTER_S", seeking_after)
    content = track(kind).read_bytes()
    half = tmp_path / kind
    half.write_bytes(content[: len(content) // 2])
    sound = cut(half, 5, target)
    np.testing.assert_allclose(sound, cut(track(kind), 5, target), atol=1e-3)
    target.unlink()
    error = refusal(WindowPastEndError, half, target, SECONDS - 5)
    assert SECONDS * 0.2 < error.length < SECONDS - 5
    assert 0 < len(cut(half, error.length - 3, target)) <= 3 * RATE + 1


def test_an_m4a_without_its_index_is_no_audio(
    track: Callable[[str], Path], tmp_path: Path, target: Path
) -> None:
    content = track("edit_list.m4a").read_bytes()
    half = tmp_path / "half.m4a"
    half.write_bytes(content[: len(content) // 2])
    assert not asyncio.run(has_audio(half))
    refusal(NotAudioError, half, target)


@pytest.mark.parametrize("name", ["list.mp3", "list.m3u8"])
def test_a_playlist_opens_nothing(
    track: Callable[[str], Path], tmp_path: Path, target: Path, name: str
) -> None:
    shutil.copy(track("cbr.mp3"), tmp_path / "secret.mp3")
    source = tmp_path / name
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/secret.mp3"
        for other in ("secret.mp3", str(tmp_path / "secret.mp3"), url):
            for script in (
                f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{other}\n#EXT-X-ENDLIST\n",
                f"ffconcat version 1.0\nfile '{other}'\n",
                f"{other}\n",
            ):
                source.write_text(script)
                refusal(NotAudioError, source, target)
        assert not asyncio.run(has_audio(source))
        with pytest.raises(BlockingIOError):
            server.accept()


def test_names_are_only_names(tmp_path: Path, target: Path) -> None:
    for name in ("concat:a|b.wav", "-i.wav", "%d.wav", "http:a.wav", "a 'b\".wav"):
        source = tmp_path / name
        source.write_bytes(encoded(tones(RATE, 440)))
        assert asyncio.run(has_audio(source))
        assert len(cut(source, 0, target)) == RATE


def test_a_relative_path_serves_as_well(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-tone.wav").write_bytes(encoded(tones(RATE, 440)))
    assert len(cut(Path("-tone.wav"), 0, target)) == RATE


def test_cancelling_kills_ffmpeg_at_once(endless: Path, target: Path) -> None:
    async def cancelled_in() -> float:
        task = asyncio.create_task(convert(endless, LATE, target))
        await asyncio.sleep(0.5)
        assert len(children()) == 1
        assert not task.done()
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - began

    assert asyncio.run(cancelled_in()) < 1
    assert not children()
    assert not any(target.parent.iterdir())


def test_ffmpeg_leaves_the_cpu_to_the_api(endless: Path, target: Path) -> None:
    async def priorities() -> list[int]:
        task = asyncio.create_task(convert(endless, LATE, target))
        await asyncio.sleep(0.5)
        (child,) = children()
        threads = [os.getpriority(os.PRIO_PROCESS, thread.id) for thread in child.threads()]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return threads

    assert set(asyncio.run(priorities())) == {min(19, os.nice(0) + 10)}


def test_ffmpeg_is_killed_when_it_takes_too_long(
    endless: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "TIMEOUT_S", 0.5)
    error = refusal(TooSlowError, endless, target, LATE.start)
    assert "endless.wav took longer than 0.5 s" in str(error)
    assert error.code == "too_slow"
    assert not children()


def test_an_ffmpeg_that_dies_is_no_end_of_the_track(endless: Path, target: Path) -> None:
    async def killed() -> None:
        task = asyncio.create_task(convert(endless, LATE, target))
        await asyncio.sleep(0.5)
        children()[0].kill()
        await task

    with pytest.raises(ConversionError, match="ffmpeg ended with -9"):
        asyncio.run(killed())
    assert not any(target.parent.iterdir())


def test_a_crafted_index_is_refused_in_little_memory(tmp_path: Path, target: Path) -> None:
    """Six at once, in a process of their own, where no other child has taken more."""
    for count, millions in itertools.product((1, 16), (3, 11, 21)):
        content = crafted_mp4(count, millions * 1_000_000)
        assert len(content) < 10_000
        source = tmp_path / f"{count}_{millions}.m4a"
        source.write_bytes(content)
        refusal(NotAudioError, source, target)
    command = [sys.executable, "-c", LOOK_AT_ALL, *sorted(map(str, tmp_path.glob("*.m4a")))]
    look = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    kilobytes, *answers = look.stdout.splitlines()[-1].split()  # before it come lines of the log
    assert len(answers) == 6 and set(answers) <= {"not_audio", "False"}
    assert int(kilobytes) < 300_000


LOOK_AT_ALL = """
import asyncio, resource, sys
from pathlib import Path
from orchestrator.errors import TrackError
from orchestrator.audio.ffmpeg import has_audio

async def look(source):
    try:
        return await has_audio(Path(source))
    except TrackError as error:
        return error.code

async def look_at_all():
    return await asyncio.gather(*map(look, sys.argv[1:]))

answers = asyncio.run(look_at_all())
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, *answers)
"""


def test_a_file_that_needs_too_much_memory_is_at_fault(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IMAGEIO_FFMPEG_EXE", raising=False)  # the wheel's, which unfolds all of it
    source = tmp_path / "crafted.m4a"
    source.write_bytes(crafted_mp4(16, 3_000_000))
    error = refusal(NotAudioError, source, target)
    assert "crafted.m4a cannot be decoded with 200 MB of memory" in str(error)
    with pytest.raises(NotAudioError, match="200 MB"):
        asyncio.run(has_audio(source))


def test_a_file_that_needs_too_much_cpu_time_is_at_fault(
    endless: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONVERTING", Purpose("converting", cpu_s=1))
    error = refusal(NotAudioError, endless, target, LATE.start)
    assert "endless.wav cannot be decoded with 200 MB of memory and 1 s of CPU time" in str(error)


def test_many_cpus_start_no_more_threads(
    ffmpeg: Path, endless: Path, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stacks of a thread for each CPU would take most of the memory."""
    program = tmp_path / "ffmpeg"
    program.write_text(f'#!/bin/sh\nexec {ffmpeg} -cpucount 64 "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))

    async def threads() -> int:
        task = asyncio.create_task(convert(endless, LATE, target))
        await asyncio.sleep(0.5)
        (child,) = children()
        count = child.num_threads()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return count

    assert asyncio.run(threads()) <= 8


@pytest.fixture
def curious(track: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In place of ffmpeg, a script that writes what it runs in into this file."""
    track("cbr.mp3")  # by a real one
    report, program = tmp_path / "report", tmp_path / "curious"
    limits = "for limit in d t s; do ulimit -$limit; done"
    program.write_text(f"#!/bin/sh\n{{ env; {limits}; }} > {report}\n")
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    return report


def test_ffmpeg_gets_limits_and_no_environment(
    track: Callable[[str], Path], curious: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSICLAB_API_KEYS", "a secret")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/libraries")
    assert not asyncio.run(has_audio(track("cbr.mp3")))
    *environment, data, cpu, stack = curious.read_text().splitlines()
    assert {line.partition("=")[0] for line in environment} <= {"LD_LIBRARY_PATH", "PWD"}
    assert "LD_LIBRARY_PATH=/libraries" in environment
    assert (int(data), int(cpu)) == (200_000_000 // 1024, 5)
    assert int(stack) <= 8192


def test_lower_limits_than_ours_stay(track: Callable[[str], Path], curious: Path) -> None:
    lower = f"ulimit -d 150000; ulimit -t 3; ulimit -s 4096; exec {sys.executable} -c '{LOOK}' $0"
    command = ["/bin/sh", "-c", lower, str(track("cbr.mp3"))]
    subprocess.run(command, cwd=PROJECT, check=True)
    assert curious.read_text().splitlines()[-3:] == ["150000", "3", "4096"]


LOOK = """
import asyncio, sys
from pathlib import Path
from orchestrator.audio.ffmpeg import has_audio

asyncio.run(has_audio(Path(sys.argv[1])))
"""


def test_conversions_wait_for_each_other_but_uploads_not_for_them(
    track: Callable[[str], Path], endless: Path, target: Path
) -> None:
    async def all_at_once() -> tuple[int, bool]:
        targets = [target.with_name(f"{number}.wav") for number in range(AT_ONCE + 3)]
        tasks = [asyncio.create_task(convert(endless, LATE, each)) for each in targets]
        async with asyncio.timeout(10):
            while len(children()) < AT_ONCE:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)  # in which further ones would start
        running = len(children())
        found = await asyncio.wait_for(has_audio(track("cbr.mp3")), 10)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return running, found

    assert asyncio.run(all_at_once()) == (AT_ONCE, True)
    assert not children()


def test_a_missing_file_is_not_one_without_audio(tmp_path: Path, target: Path) -> None:
    for source in (tmp_path / "missing.mp3", tmp_path):
        with pytest.raises(ConversionError, match="cannot be read"):
            asyncio.run(has_audio(source))
        with pytest.raises(ConversionError):
            cut(source, 0, target)


def test_a_target_that_cannot_be_written_leaves_nothing(
    track: Callable[[str], Path], tmp_path: Path, target: Path
) -> None:
    target.mkdir()
    for place in (target, tmp_path / "no folder" / "track1.wav"):
        with pytest.raises(ConversionError, match=r"track1\.wav cannot be written"):
            asyncio.run(convert(track("cbr.mp3"), Window(0, 16), place))
    assert list(target.parent.iterdir()) == [target]


def test_two_conversions_at_once(track: Callable[[str], Path], target: Path) -> None:
    kinds = ["cbr.mp3", "vorbis.ogg"]
    targets = [target.with_name(f"{kind}.wav") for kind in kinds]

    async def both() -> None:
        window = Window(30, 46)
        pairs = zip(kinds, targets, strict=True)
        await asyncio.gather(*(convert(track(kind), window, each) for kind, each in pairs))

    asyncio.run(both())
    together = [decoded(each.read_bytes()) for each in targets]
    for each in targets:
        each.unlink()
    for kind, sound in zip(kinds, together, strict=True):
        np.testing.assert_array_equal(sound, cut(track(kind), 30, target))


def test_without_any_ffmpeg_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(FfmpegMissingError, match=r"needs ffmpeg.*imageio-ffmpeg"):
        find_ffmpeg()


def test_without_the_wheel_it_is_the_one_of_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = tmp_path / "ffmpeg"
    own.write_text("")
    own.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    assert find_ffmpeg() == own
