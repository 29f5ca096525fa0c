"""Real music for tests: three songs from Debian's package asc-music, fetched when first needed."""

import os
import subprocess
from functools import cache
from pathlib import Path

from orchestrator.audio.ffmpeg import find_ffmpeg
from tests.support.debian import fetched
from tests.support.signals import RATE, SEGMENT, Samples, decoded

OWN_SONGS = "MUSICLAB_TEST_SONGS"
TRACK_S = 40  # of the tracks that are made of them


def songs() -> list[Path]:
    """Three songs of some minutes: those in the folder $MUSICLAB_TEST_SONGS, or else Debian's."""
    if OWN_SONGS in os.environ:
        folder = Path(os.environ[OWN_SONGS])
    else:
        otherwise = f"set {OWN_SONGS} to a folder with three songs of two minutes or more"
        folder = fetched("asc-music", "usr/share/games/asc/music", "songs", otherwise)
    found = sorted(file for file in folder.iterdir() if file.suffix in (".mp3", ".ogg", ".flac"))
    assert len(found) >= 3, f"{folder} holds {len(found)} songs (.mp3, .ogg, .flac); put in three"
    return found[:3]


def cut(song: Path, start: float) -> Samples:
    """Sixteen seconds of a song as 24 kHz mono, exactly 384,000 samples."""
    first = round(start * RATE)
    return whole(song)[first : first + SEGMENT]


@cache
def whole(song: Path) -> Samples:
    """A song as 24 kHz mono, decoded from its beginning: seeking misses in some formats."""
    wav = subprocess.run(
        [
            *(find_ffmpeg(), "-v", "error", "-i", str(song)),
            *("-ac", "1", "-ar", str(RATE), "-c:a", "pcm_s16le", "-f", "wav", "-"),
        ],
        check=True,
        capture_output=True,
    ).stdout
    return decoded(wav)
