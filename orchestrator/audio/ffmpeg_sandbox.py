"""Runs ffmpeg on untrusted files with limits on memory, CPU time, wall time and concurrency."""

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
NICENESS = 10  # keeps the API responsive while ffmpeg uses all CPUs

# Bytes that ffmpeg may allocate, including thread stacks. Tracks of all formats need 60 MB (more
# only if they contain large pictures); the index of a crafted 7 kB MP4 can need more than 4 GB.
MEMORY = 200_000_000
# Maximum number of ffmpeg processes that this process runs at once, per purpose. The limits are
# separate so that slow conversions do not delay the probing of uploads.
MAX_CONCURRENT = min(8, max(2, os.cpu_count() or 2))
# Sets the limits before ffmpeg starts: Python's preexec_fn is not safe with threads. Existing hard
# limits that are lower stay in force. The stack limit is the memory reserved for each thread; the
# system's default can be eight times as large.
WRAPPER = '{ ulimit -S -s 8192; ulimit -d "$1"; ulimit -t "$2"; } 2>/dev/null; shift 2; exec "$@"'
# The only inherited environment variable, needed if ffmpeg's libraries are in a non-standard
# directory.
INHERITED_VARIABLES = ("LD_LIBRARY_PATH",)

CHUNK = 2**16
STDERR_KEPT = 4096
INTERNAL_ERROR = re.compile(
    "Input/output error|Option not found|Unrecognized option|error while loading shared libraries"
)
# The second message is printed if there is no memory for the stack of a thread.
OUT_OF_MEMORY = re.compile("Cannot allocate memory|Resource temporarily unavailable")
CRASHED = {-signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGSEGV}

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True)
class Purpose:
    """The purpose of running ffmpeg; `cpu_s` is the limit on its CPU time in seconds."""

    name: str
    cpu_s: int


PROBING = Purpose("probing", 5)
CONVERTING = Purpose("converting", 60)

_semaphores: WeakKeyDictionary[AbstractEventLoop, dict[Purpose, asyncio.Semaphore]] = (
    WeakKeyDictionary()
)


async def run_limited(
    command: list[str],
    purpose: Purpose,
    source: Path,
    read: Callable[[asyncio.StreamReader], Awaitable[T]],
) -> T:
    """Waits for a free slot and runs ffmpeg.

    Args:
        command: the program and its arguments.
        purpose: limits the CPU time and the number of concurrent processes.
        source: the decoded file, for error messages.
        read: reads standard output to its end.

    Returns:
        The result of `read`.

    Raises:
        NotAudioError: ffmpeg reached a limit, or crashed.
        TooSlowError: ffmpeg ran longer than TIMEOUT_S.
        ConversionError: ffmpeg could not be run, or was killed externally.
    """
    async with _semaphore_for(purpose):
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
                f"{source.name} took longer than {TIMEOUT_S:g} s to decode"
            ) from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()  # reaps it, and closes pipes that still hold data
        _check_exit(code, stderr, _children_cpu_s() - cpu_before, purpose, source)
        return result


async def _start(command: list[str], cpu_s: int) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", WRAPPER, "sh", str(MEMORY // 1024), str(cpu_s)),
        *command,
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        env={name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ},
        start_new_session=True,  # shields it from Ctrl-C, which would truncate the output
    )
    _lower_priority(process.pid)
    return process


def _check_exit(code: int, stderr: str, cpu_used: float, purpose: Purpose, source: Path) -> None:
    """Raises the error that the exit code and the end of standard error indicate, if any."""
    cpu_s = purpose.cpu_s
    # The kernel kills a process that exceeds its CPU time, but SIGKILL may also come from
    # elsewhere. The limit is counted in ticks, which can differ considerably from the CPU time
    # reported afterwards.
    out_of_time = code == -signal.SIGKILL and cpu_used > min(cpu_s, _hard_cpu_limit_s()) / 2
    if out_of_time or code in CRASHED or (code and OUT_OF_MEMORY.search(stderr)):
        # If the system is out of processes, the message is the same as for a file that needs too
        # much memory.
        log.warning("ffmpeg reached a limit", code=code, reason=_last_error(stderr, source, code))
        raise NotAudioError(
            f"{source.name} cannot be decoded within the limits of {MEMORY // 10**6} MB of memory "
            f"and {cpu_s} s of CPU time"
        )
    # A negative code means a signal; 126 and 127 mean that ffmpeg could not be run.
    if code < 0 or code in (126, 127) or (code and INTERNAL_ERROR.search(stderr)):
        raise ConversionError(
            f"{source.name} could not be decoded: {_last_error(stderr, source, code)}"
        )


def _semaphore_for(purpose: Purpose) -> asyncio.Semaphore:
    """Returns the semaphore that limits concurrent processes for this purpose."""
    semaphores = _semaphores.setdefault(asyncio.get_running_loop(), {})
    return semaphores.setdefault(purpose, asyncio.Semaphore(MAX_CONCURRENT))


def _hard_cpu_limit_s() -> float:
    """Returns this process's hard limit on CPU time, which child processes inherit."""
    limit = resource.getrlimit(resource.RLIMIT_CPU)[1]
    return math.inf if limit == resource.RLIM_INFINITY else limit


def _children_cpu_s() -> float:
    """Returns the CPU time of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _lower_priority(group: int) -> None:
    """Lowers the CPU priority of a process group below ours, if it is still running.

    Setting it for the process alone would omit the threads that it has already started.
    """
    with suppress(ProcessLookupError):
        os.setpriority(os.PRIO_PGRP, group, os.nice(0) + NICENESS)


async def _tail(stream: asyncio.StreamReader) -> str:
    """Returns the last STDERR_KEPT bytes of a stream as text."""
    tail = b""
    while chunk := await stream.read(CHUNK):
        tail = (tail + chunk)[-STDERR_KEPT:]
    return tail.decode(errors="replace")


def _last_error(stderr: str, source: Path, code: int) -> str:
    """Returns the last line of standard error, without memory addresses and directories."""
    lines = stderr.replace(f"file:{source.resolve()}", source.name).strip().splitlines()
    return re.sub(r"\[[^]]* @ 0x\w+] ", "", lines[-1]) if lines else f"ffmpeg exited with {code}"
