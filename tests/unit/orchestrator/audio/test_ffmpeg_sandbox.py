"""The ffmpeg sandbox: limits on time, memory and threads, and no access to other files."""

import asyncio
import itertools
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.audio import cutting, ffmpeg_sandbox
from orchestrator.audio.cutting import cut_window
from orchestrator.audio.ffmpeg_sandbox import MAX_CONCURRENT, Purpose
from orchestrator.audio.probing import has_audio
from orchestrator.errors import ConversionError, NotAudioError, TooSlowError
from tests.support.conversions import LATE, children, cut, rejection
from tests.support.hostile_mp4 import crafted_mp4
from tests.support.project import PROJECT
from tests.support.signals import RATE, encoded, tones

pytestmark = pytest.mark.usefixtures("ffmpeg")


@pytest.mark.parametrize("name", ["list.mp3", "list.m3u8"])
async def test_a_playlist_opens_no_file_and_no_url(
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
                await rejection(NotAudioError, source, target)
        assert not await has_audio(source)
        with pytest.raises(BlockingIOError):
            server.accept()


async def test_special_characters_in_file_names_have_no_effect(
    tmp_path: Path, target: Path
) -> None:
    for name in ("concat:a|b.wav", "-i.wav", "%d.wav", "http:a.wav", "a 'b\".wav"):
        source = tmp_path / name
        source.write_bytes(encoded(tones(RATE, 440)))
        assert await has_audio(source)
        assert len(await cut(source, 0, target)) == RATE


async def test_a_relative_path_is_accepted(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-tone.wav").write_bytes(encoded(tones(RATE, 440)))
    assert len(await cut(Path("-tone.wav"), 0, target)) == RATE


async def test_cancelling_kills_ffmpeg_immediately(endless: Path, target: Path) -> None:
    task = asyncio.create_task(cut_window(endless, LATE, target))
    await asyncio.sleep(0.5)
    assert len(children()) == 1
    assert not task.done()
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < 1
    assert not children()
    assert not any(target.parent.iterdir())


async def test_ffmpeg_runs_at_a_lower_priority_than_the_api(endless: Path, target: Path) -> None:
    task = asyncio.create_task(cut_window(endless, LATE, target))
    await asyncio.sleep(0.5)
    (child,) = children()
    priorities = {os.getpriority(os.PRIO_PROCESS, thread.id) for thread in child.threads()}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert priorities == {min(19, os.nice(0) + 10)}


async def test_ffmpeg_is_killed_when_it_takes_too_long(
    endless: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ffmpeg_sandbox, "TIMEOUT_S", 0.5)
    error = await rejection(TooSlowError, endless, target, LATE.start)
    assert "endless.wav took longer than 0.5 s" in str(error)
    assert error.code == "too_slow"
    assert not children()


async def test_a_killed_ffmpeg_is_not_taken_for_the_end_of_the_track(
    endless: Path, target: Path
) -> None:
    task = asyncio.create_task(cut_window(endless, LATE, target))
    await asyncio.sleep(0.5)
    children()[0].kill()
    with pytest.raises(ConversionError, match="ffmpeg exited with -9"):
        await task
    assert not any(target.parent.iterdir())


async def test_a_crafted_index_is_rejected_with_little_memory(tmp_path: Path, target: Path) -> None:
    """Six probes run at once, in a new process so that only their peak memory is measured."""
    for count, millions in itertools.product((1, 16), (3, 11, 21)):
        content = crafted_mp4(count, millions * 1_000_000)
        assert len(content) < 10_000
        source = tmp_path / f"{count}_{millions}.m4a"
        source.write_bytes(content)
        await rejection(NotAudioError, source, target)
    command = [sys.executable, "-c", PROBE_ALL, *sorted(map(str, tmp_path.glob("*.m4a")))]
    completed = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    kilobytes, *results = completed.stdout.splitlines()[-1].split()  # log lines precede it
    assert len(results) == 6 and set(results) <= {"not_audio", "False"}
    assert int(kilobytes) < 300_000


PROBE_ALL = """
import asyncio, resource, sys
from pathlib import Path
from orchestrator.errors import TrackError
from orchestrator.audio.probing import has_audio

async def probe(source):
    try:
        return await has_audio(Path(source))
    except TrackError as error:
        return error.code

async def probe_all():
    return await asyncio.gather(*map(probe, sys.argv[1:]))

results = asyncio.run(probe_all())
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, *results)
"""


async def test_a_file_that_needs_too_much_memory_is_rejected(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The wheel's ffmpeg expands the whole index.
    monkeypatch.delenv("IMAGEIO_FFMPEG_EXE", raising=False)
    source = tmp_path / "crafted.m4a"
    source.write_bytes(crafted_mp4(16, 3_000_000))
    error = await rejection(NotAudioError, source, target)
    assert "crafted.m4a cannot be decoded within the limits of 200 MB of memory" in str(error)
    with pytest.raises(NotAudioError, match="200 MB"):
        await has_audio(source)


async def test_a_file_that_needs_too_much_cpu_time_is_rejected(
    endless: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "CONVERTING", Purpose("converting", cpu_s=1))
    error = await rejection(NotAudioError, endless, target, LATE.start)
    assert (
        "endless.wav cannot be decoded within the limits of 200 MB of memory and 1 s of CPU time"
        in str(error)
    )


async def test_the_number_of_threads_does_not_grow_with_the_cpus(
    ffmpeg: Path, endless: Path, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stacks of one thread per CPU would use most of the memory limit."""
    program = tmp_path / "ffmpeg"
    program.write_text(f'#!/bin/sh\nexec {ffmpeg} -cpucount 64 "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))

    task = asyncio.create_task(cut_window(endless, LATE, target))
    await asyncio.sleep(0.5)
    (child,) = children()
    threads = child.num_threads()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert threads <= 8


@pytest.fixture
def environment_report(
    track: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The file to which a script in place of ffmpeg writes its environment and its limits."""
    track("cbr.mp3")  # created with a real ffmpeg
    report, program = tmp_path / "report", tmp_path / "reporting_ffmpeg"
    limits = "for limit in d t s; do ulimit -$limit; done"
    program.write_text(f"#!/bin/sh\n{{ env; {limits}; }} > {report}\n")
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    return report


async def test_ffmpeg_runs_with_limits_and_without_the_environment(
    track: Callable[[str], Path], environment_report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSICLAB_API_KEYS", "a secret")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/libraries")
    assert not await has_audio(track("cbr.mp3"))
    *environment, data, cpu, stack = environment_report.read_text().splitlines()
    assert {line.partition("=")[0] for line in environment} <= {"LD_LIBRARY_PATH", "PWD"}
    assert "LD_LIBRARY_PATH=/libraries" in environment
    assert (int(data), int(cpu)) == (200_000_000 // 1024, 5)
    assert int(stack) <= 8192


def test_lower_existing_limits_are_kept(
    track: Callable[[str], Path], environment_report: Path
) -> None:
    lower = f"ulimit -d 150000; ulimit -t 3; ulimit -s 4096; exec {sys.executable} -c '{PROBE}' $0"
    command = ["/bin/sh", "-c", lower, str(track("cbr.mp3"))]
    subprocess.run(command, cwd=PROJECT, check=True)
    assert environment_report.read_text().splitlines()[-3:] == ["150000", "3", "4096"]


PROBE = """
import asyncio, sys
from pathlib import Path
from orchestrator.audio.probing import has_audio

asyncio.run(has_audio(Path(sys.argv[1])))
"""


async def test_conversions_wait_for_each_other_without_delaying_uploads(
    track: Callable[[str], Path], endless: Path, target: Path
) -> None:
    targets = [target.with_name(f"{number}.wav") for number in range(MAX_CONCURRENT + 3)]
    tasks = [asyncio.create_task(cut_window(endless, LATE, each)) for each in targets]
    async with asyncio.timeout(10):
        while len(children()) < MAX_CONCURRENT:
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)  # enough for further conversions to start
    running = len(children())
    found = await asyncio.wait_for(has_audio(track("cbr.mp3")), 10)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (running, found) == (MAX_CONCURRENT, True)
    assert not children()
