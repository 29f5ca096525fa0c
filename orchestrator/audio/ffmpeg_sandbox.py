"""Runs ffmpeg on strangers' files within limits of memory, CPU time, wall time and number."""

import asyncio
import math
import os
import re
import resource
import signal
from asyncio import AbstractEventLoop
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from weakref import WeakKeyDictionary

import structlog

from orchestrator.errors import ConversionError, NotAudioError, TooSlowError

TIMEOUT_S = 60.0
NICENESS = 10  # where ffmpeg takes all CPUs, the API still answers at once

# Bytes that ffmpeg may allocate, the stacks of its threads included. Tracks of all kinds take 60 MB
# (more only with large pictures in them); the index of an MP4 of 7 kB can take more than 4 GB.
MEMORY = 200_000_000
# How many run at once in this process for each purpose, so that uploads can be looked at while all
# conversions are slow ones.
AT_ONCE = min(8, max(2, os.cpu_count() or 2))
# Limits that hold from ffmpeg's first instruction on: Python's own way, preexec_fn, is not safe
# beside threads. A lower hard limit that is there already stays. The stack's is what each thread
# gets of the memory, and may be eight times as large on a machine that is set up for other things.
LIMITED = '{ ulimit -S -s 8192; ulimit -d "$1"; ulimit -t "$2"; } 2>/dev/null; shift 2; exec "$@"'
# All that it needs of the environment, where its libraries are in no standard folder.
PASSED_ON = ("LD_LIBRARY_PATH",)

CHUNK = 2**16
STDERR_KEPT = 4096
OUR_FAULT = re.compile(
    "Input/output error|Option not found|Unrecognized option|error while loading shared libraries"
)
# A thread that gets no memory for its stack says the second.
OUT_OF_MEMORY = re.compile("Cannot allocate memory|Resource temporarily unavailable")
CRASHED = {-signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGSEGV}

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True)
class Purpose:
    """What ffmpeg is run for; `cpu_s` is the CPU time that it may take, in seconds."""

    name: str
    cpu_s: int


PROBING = Purpose("probing", 5)
CONVERTING = Purpose("converting", 60)

_places: WeakKeyDictionary[AbstractEventLoop, dict[Purpose, asyncio.Semaphore]] = (
    WeakKeyDictionary()
)


async def run_limited(
    command: list[str],
    purpose: Purpose,
    source: Path,
    read: Callable[[asyncio.StreamReader], Awaitable[T]],
) -> T:
    """Runs ffmpeg when there is a place for it.

    Args:
        command: the program and its arguments.
        purpose: bounds the CPU time, and how many run at once.
        source: the file that is decoded, for errors.
        read: reads standard output to its end.

    Returns:
        What `read` returned.

    Raises:
        NotAudioError: ffmpeg reached a limit, or crashed.
        TooSlowError: it took too long.
        ConversionError: it could not be run, or was killed from outside.
    """
    async with _places_for(purpose):
        cpu_before = _children_cpu_s()
        process = await _start(command, purpose.cpu_s)
        assert process.stdout is not None and process.stderr is not None  # noqa: S101 - for mypy
        try:
            async with asyncio.timeout(TIMEOUT_S):
                result, stderr, code = await asyncio.gather(
                    read(process.stdout), _tail(process.stderr), process.wait()
                )
        except TimeoutError:
            raise TooSlowError(
                f"{source.name} took longer than {TIMEOUT_S:g} s to decode, and was given up"
            ) from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()  # reaps it, and closes pipes that still hold something
        _check_exit(code, stderr, _children_cpu_s() - cpu_before, purpose, source)
        return result


async def _start(command: list[str], cpu_s: int) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", LIMITED, "sh", str(MEMORY // 1024), str(cpu_s)),
        *command,
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        env={name: os.environ[name] for name in PASSED_ON if name in os.environ},
        start_new_session=True,  # Ctrl-C is ours to handle: ffmpeg would end with half the samples
    )
    _make_nice(process.pid)
    return process


def _check_exit(code: int, stderr: str, cpu_used: float, purpose: Purpose, source: Path) -> None:
    """Raises what an exit code, and the end of standard error, mean for the file."""
    cpu_s = purpose.cpu_s
    # The kernel kills what has used up its CPU time, but others send the same signal. It counts for
    # that in ticks, which may be far from the time that it tells afterwards.
    out_of_time = code == -signal.SIGKILL and cpu_used > min(cpu_s, _hard_cpu_limit_s()) / 2
    if out_of_time or code in CRASHED or (code and OUT_OF_MEMORY.search(stderr)):
        # A machine that has no more processes to give says the same as a file that takes too much.
        log.warning("ffmpeg reached a limit", code=code, reason=_last_error(stderr, source, code))
        raise NotAudioError(
            f"{source.name} cannot be decoded with {MEMORY // 10**6} MB of memory and {cpu_s} s of "
            "CPU time"
        )
    # A negative code is a signal's, 126 and 127 say that it could not be run.
    if code < 0 or code in (126, 127) or (code and OUR_FAULT.search(stderr)):
        raise ConversionError(f"{source.name} was not decoded: {_last_error(stderr, source, code)}")


def _places_for(purpose: Purpose) -> asyncio.Semaphore:
    """What has a place for each ffmpeg that may run at once."""
    places = _places.setdefault(asyncio.get_running_loop(), {})
    return places.setdefault(purpose, asyncio.Semaphore(AT_ONCE))


def _hard_cpu_limit_s() -> float:
    """What this process may hand on, which may be less than is asked for."""
    limit = resource.getrlimit(resource.RLIMIT_CPU)[1]
    return math.inf if limit == resource.RLIM_INFINITY else limit


def _children_cpu_s() -> float:
    """CPU time of all processes that were started here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _make_nice(group: int) -> None:
    """Give a process group a lower CPU priority than ours, if it has not ended by now.

    Of a group, not of its one process: that would leave out the threads it has started already.
    """
    with suppress(ProcessLookupError):
        os.setpriority(os.PRIO_PGRP, group, os.nice(0) + NICENESS)


async def _tail(stream: asyncio.StreamReader) -> str:
    """The end of what was said, however much a broken file made ffmpeg say."""
    tail = b""
    while chunk := await stream.read(CHUNK):
        tail = (tail + chunk)[-STDERR_KEPT:]
    return tail.decode(errors="replace")


def _last_error(stderr: str, source: Path, code: int) -> str:
    """The last line without memory addresses and folders."""
    lines = stderr.replace(f"file:{source.resolve()}", source.name).strip().splitlines()
    return re.sub(r"\[[^]]* @ 0x\w+] ", "", lines[-1]) if lines else f"ffmpeg ended with {code}"
