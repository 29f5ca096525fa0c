"""Real music for tests: three songs from the Debian package asc-music, fetched on first use."""

import os
import subprocess
from functools import cache
from pathlib import Path

from orchestrator.audio.ffmpeg import find_ffmpeg
from tests.support.debian import fetch_directory
from tests.support.signals import RATE, SEGMENT, Samples, decoded

OWN_SONGS = "MUSICLAB_TEST_SONGS"
TRACK_S = 40  # length of the tracks cut from the songs


def songs() -> list[Path]:
    """Three songs of a few minutes: from $MUSICLAB_TEST_SONGS if set, or else from Debian."""
    if OWN_SONGS in os.environ:
        folder = Path(os.environ[OWN_SONGS])
    else:
        alternative = f"set {OWN_SONGS} to a directory with three songs of two minutes or more"
        folder = fetch_directory("asc-music", "usr/share/games/asc/music", "songs", alternative)
    found = sorted(file for file in folder.iterdir() if file.suffix in (".mp3", ".ogg", ".flac"))
    assert len(found) >= 3, f"found {len(found)} of three songs (.mp3, .ogg, .flac) in {folder}"
    return found[:3]


def cut(song: Path, start: float) -> Samples:
    """Sixteen seconds of a song as 24 kHz mono, exactly 384,000 samples."""
    first = round(start * RATE)
    return whole(song)[first : first + SEGMENT]


@cache
def whole(song: Path) -> Samples:
    """A song as 24 kHz mono, decoded from its beginning: seeking is inexact in some formats."""
    wav = subprocess.run(
        [
            *(find_ffmpeg(), "-v", "error", "-i", str(song)),
            *("-ac", "1", "-ar", str(RATE), "-c:a", "pcm_s16le", "-f", "wav", "-"),
        ],
        check=True,
        capture_output=True,
    ).stdout
    return decoded(wav)
