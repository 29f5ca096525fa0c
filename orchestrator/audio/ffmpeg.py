"""Finds audio in an uploaded file and cuts a window out of it, with ffmpeg.

An upload is a stranger's file: ffmpeg opens nothing but it, with six kinds of container and no
network, decodes no pictures, and is killed when it takes too long or nobody waits for it any more.
The kernel limits its memory and CPU time, and it gets no environment, which holds keys. It only
reads. The samples come through a pipe, so every file written here is written whole.
"""

import asyncio
import io
import math
import os
import re
import resource
import shutil
import signal
import wave
from asyncio import AbstractEventLoop
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

import structlog

from orchestrator.audio.window import Window
from orchestrator.errors import (
    ConversionError,
    FfmpegMissingError,
    NotAudioError,
    TooSlowError,
    TrackError,
    WindowPastEndError,
)

log = structlog.get_logger()

RATE = 24_000
SAMPLE_BYTES = 2
TIMEOUT_S = 60.0
COUNTED_WITHIN_S = 2.0  # enough for half an hour; four minutes take a quarter of a second
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

# ffmpeg seeks to windows that start later than this; up to here decoding from the beginning is
# nearly as quick. Medians of the kinds of track, of four minutes, with Debian's 5.1 (the wheel's
# 9.0), whose mere start takes 65 ms (15 ms):
#
#     window at     10 s        30 s        60 s        120 s       200 s
#     from start    90 (50)    100 (65)    125 (95)    170 (165)   225 (215) ms
#     sought        85 (40)     85 (40)     85 (40)     85 (45)     85 (40) ms
#
# What is sought was within 0.1 ms of a full decode, up to 46 minutes into an hour: MP3 (CBR, and
# VBR with and without Xing header: ffmpeg walks through every frame up to there), M4A (AAC and
# ALAC; with and without edit list; in fragments), ADTS, WAV, FLAC and Ogg (Vorbis, Opus, FLAC). In
# a damaged track it is the better of the two: exactly where the undamaged one has it if frames
# tell their time, as in M4A, FLAC and Ogg. Decoding from the beginning counts only what can be
# decoded, and was off by 23 ms for each lost frame of AAC, and by 15 s for 20 wrong bytes in Ogg.
SEEK_AFTER_S = 10.0

# A file's times begin with its first stream, which need not be the audio, and again with each that
# is chained to it. So only files with one stream are sought in. How a kind of file begins, and what
# begins each stream in it: Ogg's first page of one, FLAC's marker with the head of a first block,
# the handler of an MP4 track of sound or video. Other kinds count on, whatever is chained.
STREAM_MARKS = {
    rb"OggS": rb"OggS\0[\2\3\6\7]",
    rb"fLaC": rb"fLaC[\0\x80]\0\0\x22",
    rb".{4}(?:ftyp|moov|mdat|wide|free|skip|pnot)": rb"hdlr.{8}(?:soun|vide)",
}
LONGEST_MARK = 16

# A decoder that starts in mid-stream needs frames to settle: the first 0.25 s of a VBR MP3 agree
# with a full decode by a correlation of 0.4 only, and 9.0 skips the 23 ms of AAC's priming there.
# So it starts this much earlier, and ffmpeg drops what comes before the window by timestamp.
PREROLL_S = 2.0

# Longer than any upload. ffmpeg does not understand arbitrarily large times.
LONGEST_S = 1e7

# Containers, by the names of ffmpeg's demuxers, in which the allowed extensions come. Playlists,
# concat scripts and whatever else names further files to open are not among them.
FORMATS = "mp3,mov,wav,flac,ogg,aac"

CHUNK = 2**16
SCANNED = 2**20
WORDS_KEPT = 4096
OUR_FAULT = re.compile(
    "Input/output error|Option not found|Unrecognized option|error while loading shared libraries"
)
# A thread that gets no memory for its stack says the second.
OUT_OF_MEMORY = re.compile("Cannot allocate memory|Resource temporarily unavailable")
CRASHED = {-signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGSEGV}


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


@dataclass(frozen=True)
class _Heard:
    """What ffmpeg decoded: the wanted samples, PCM_16 mono at 24 kHz, and how many came in all."""

    wanted: bytes
    samples: int


def find_ffmpeg() -> Path:
    """The ffmpeg of the imageio-ffmpeg wheel (or what IMAGEIO_FFMPEG_EXE names), or else of PATH.

    In this order because the wheel's is one file without libraries to load: it starts in 15 ms,
    where Debian's takes 75 ms, four times a job.

    Raises:
        FfmpegMissingError: there is neither.
    """
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        name = get_ffmpeg_exe()
    except (ImportError, RuntimeError):  # RuntimeError: a wheel without ffmpeg in it
        name = "ffmpeg"
    found = shutil.which(name)
    if found is None:
        raise FfmpegMissingError(
            f"reading tracks needs ffmpeg, and there is none called {name!r}; install it, or "
            "`pip install imageio-ffmpeg`"
        )
    return Path(found)


async def has_audio(source: Path) -> bool:
    """Whether at least one frame of the first audio stream can be decoded.

    Raises:
        NotAudioError: ffmpeg reached a limit, or crashed.
        TooSlowError: it takes too long.
        ConversionError: that could not be found out.
    """
    return (await _decode(PROBING, source, [], ["-frames:a", "1"], wanted=1)).samples > 0


async def length(source: Path) -> float | None:
    """Seconds of the first audio stream, counted by decoding it; None where that is not done soon.

    What a file states of its length is not asked for: it is wrong where the file is cut off.
    """
    try:
        async with asyncio.timeout(COUNTED_WITHIN_S):
            return (await _decode(PROBING, source, [], [], wanted=0)).samples / RATE
    except (TimeoutError, TrackError, ConversionError):
        return None


async def convert(source: Path, window: Window, target: Path) -> bytes:
    """Write the window of the first audio stream as 24 kHz mono PCM_16 WAV, and return the same.

    It is shorter where the track ends inside the window. On failure nothing is written.

    Raises:
        NotAudioError: there is no audio that can be decoded, within the limits.
        WindowPastEndError: the window starts where the audio has ended.
        TooSlowError: it takes too long.
        ConversionError: anything else went wrong.
    """
    start = min(window.start, LONGEST_S)
    wanted = round(window.seconds * RATE)
    heard = None
    if start > SEEK_AFTER_S and await asyncio.to_thread(_has_one_stream, source):
        before = ["-ss", f"{start - PREROLL_S:.6f}"]
        after = ["-ss", f"{PREROLL_S}", "-t", f"{window.seconds:.6f}"]
        heard = await _decode(CONVERTING, source, before, after, wanted=wanted)
    if heard is None or not heard.wanted:
        # Also where seeking finds nothing: the file may be too broken for it, and of a track that
        # ends earlier this tells the true length, which its header may not.
        # Its end is counted in samples, as its start is: timestamps go on where frames are lost.
        after = ["-af", "asetpts=N/SR/TB", "-t", f"{start + window.seconds:.6f}"]
        skipped = round(start * RATE)
        heard = await _decode(CONVERTING, source, [], after, wanted=wanted, skipped=skipped)
    if not heard.samples:
        raise NotAudioError(f"{source.name} holds no audio that can be decoded")
    if not heard.wanted:
        raise WindowPastEndError(heard.samples / RATE)
    # Written on the event loop: less than 1 MB, and no cancellation can come in between.
    wav = _wav(heard.wanted)
    _write(wav, target)
    return wav


def _has_one_stream(source: Path) -> bool:
    """Whether seeking finds the same as decoding from the beginning. Takes 2 ms for 5 MB."""
    _check_readable(source)
    with source.open("rb") as file:
        tail = file.read(LONGEST_MARK)
        marks = [mark for kind, mark in STREAM_MARKS.items() if re.match(kind, tail, re.DOTALL)]
        if not marks:
            return True
        mark, found = re.compile(marks[0], re.DOTALL), 0
        while chunk := file.read(SCANNED):
            searched, end = tail + chunk, 0
            for match in mark.finditer(searched):
                found, end = found + 1, match.end()
            tail = searched[max(end, len(searched) - LONGEST_MARK + 1) :]
    return found == 1


async def _decode(
    purpose: Purpose,
    source: Path,
    before: list[str],
    after: list[str],
    *,
    wanted: int,
    skipped: int = 0,
) -> _Heard:
    """Run ffmpeg with options before and after its input; keep some samples and count them all."""
    _check_readable(source)
    command = [
        *(str(find_ffmpeg()), "-nostdin", "-v", "error", "-max_alloc", str(MEMORY)),
        *("-protocol_whitelist", "file,pipe", "-format_whitelist", FORMATS),
        # Broken frames are no reason to give up: what can be decoded is used.
        *("-max_error_rate", "1", "-vn", "-sn", "-dn"),
        # Else there is a filter thread for each CPU, and the stacks of 16 nearly reach the limit.
        *("-threads", "1", "-filter_threads", "1"),
        *before,
        *("-i", f"file:{source.resolve()}", "-map", "0:a:0"),
        *after,
        *("-ac", "1", "-ar", str(RATE), "-f", "s16le", "pipe:1"),
    ]
    async with _place(purpose):
        return await _run(command, purpose.cpu_s, source, wanted, skipped)


def _place(purpose: Purpose) -> asyncio.Semaphore:
    """What has a place for each ffmpeg that may run at once."""
    places = _places.setdefault(asyncio.get_running_loop(), {})
    return places.setdefault(purpose, asyncio.Semaphore(AT_ONCE))


async def _run(command: list[str], cpu_s: int, source: Path, wanted: int, skipped: int) -> _Heard:
    """Run ffmpeg on a source, within limits."""
    cpu_before = _children_cpu_s()
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
    assert process.stdout is not None and process.stderr is not None  # noqa: S101 - for mypy
    try:
        async with asyncio.timeout(TIMEOUT_S):
            heard, words, code = await asyncio.gather(
                _samples(process.stdout, skipped, wanted),
                _last_words(process.stderr),
                process.wait(),
            )
    except TimeoutError:
        raise TooSlowError(
            f"{source.name} took longer than {TIMEOUT_S:g} s to decode, and was given up"
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()  # reaps it, and closes pipes that still hold something
    # The kernel kills what has used up its CPU time, but others send the same signal. It counts for
    # that in ticks, which may be far from the time that it tells afterwards.
    cpu_used = _children_cpu_s() - cpu_before
    out_of_time = code == -signal.SIGKILL and cpu_used > min(cpu_s, _hard_cpu_limit_s()) / 2
    if out_of_time or code in CRASHED or (code and OUT_OF_MEMORY.search(words)):
        # A machine that has no more processes to give says the same as a file that takes too much.
        log.warning("ffmpeg reached a limit", code=code, reason=_last_error(words, source, code))
        raise NotAudioError(
            f"{source.name} cannot be decoded with {MEMORY // 10**6} MB of memory and {cpu_s} s of "
            "CPU time"
        )
    # A negative code is a signal's, 126 and 127 say that it could not be run.
    if code < 0 or code in (126, 127) or (code and OUR_FAULT.search(words)):
        raise ConversionError(f"{source.name} was not decoded: {_last_error(words, source, code)}")
    return heard


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


def _check_readable(source: Path) -> None:
    """Keeps a file that is missing from being taken for one without audio."""
    try:
        source.open("rb").close()
    except OSError as error:
        raise ConversionError(f"{source.name} cannot be read: {error.strerror}") from None


async def _samples(stream: asyncio.StreamReader, skipped: int, wanted: int) -> _Heard:
    first, last = skipped * SAMPLE_BYTES, (skipped + wanted) * SAMPLE_BYTES
    kept, count = bytearray(), 0
    while chunk := await stream.read(CHUNK):
        kept += chunk[max(0, first - count) : max(0, last - count)]
        count += len(chunk)
    return _Heard(bytes(kept), count // SAMPLE_BYTES)


async def _last_words(stream: asyncio.StreamReader) -> str:
    """The end of what was said, however much a broken file made ffmpeg say."""
    tail = b""
    while chunk := await stream.read(CHUNK):
        tail = (tail + chunk)[-WORDS_KEPT:]
    return tail.decode(errors="replace")


def _last_error(words: str, source: Path, code: int) -> str:
    """The last line without memory addresses and folders."""
    lines = words.replace(f"file:{source.resolve()}", source.name).strip().splitlines()
    return re.sub(r"\[[^]]* @ 0x\w+] ", "", lines[-1]) if lines else f"ffmpeg ended with {code}"


def _wav(samples: bytes) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setparams((1, SAMPLE_BYTES, RATE, 0, "NONE", "not compressed"))
        wav.writeframes(samples)
    return file.getvalue()


def _write(content: bytes, target: Path) -> None:
    part = target.with_name(f"{target.name}.part")
    try:
        part.write_bytes(content)
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ConversionError(f"{target.name} cannot be written: {error.strerror}") from None
