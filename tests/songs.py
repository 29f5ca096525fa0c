"""Real music for tests: three songs from Debian's package asc-music, fetched when first needed."""

import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from orchestrator.ffmpeg import find_ffmpeg
from tests.signals import RATE, SEGMENT, Samples, decoded

PACKAGE = "asc-music"
CACHE = Path(__file__).resolve().parent.parent / ".cache" / "songs"
OWN_SONGS = "MUSICLAB_TEST_SONGS"


def songs() -> list[Path]:
    """Three songs of some minutes: those in the folder $MUSICLAB_TEST_SONGS, or else Debian's."""
    folder = Path(os.environ[OWN_SONGS]) if OWN_SONGS in os.environ else CACHE
    if folder == CACHE and not CACHE.exists():
        _fetch()
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


def _fetch() -> None:
    assert shutil.which("apt-get"), (
        f"the tests with real music take it from Debian's package {PACKAGE}, and this machine has "
        f"no apt-get; set {OWN_SONGS} to a folder with three songs of two minutes or more"
    )
    CACHE.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE.parent) as scratch:
        # Package lists of our own: needs no root, and no earlier `apt-get update`.
        for name in ("lists/partial", "archives/partial"):
            Path(scratch, name).mkdir(parents=True)
        apt = [
            "apt-get",
            "--quiet=2",
            *("-o", f"Dir::State::Lists={scratch}/lists"),
            *("-o", f"Dir::Cache={scratch}"),
            *("-o", "APT::Sandbox::User="),
            *("-o", "Acquire::Languages=none"),
        ]
        subprocess.run([*apt, "update"], check=True, cwd=scratch)
        subprocess.run([*apt, "download", PACKAGE], check=True, cwd=scratch)
        (package,) = Path(scratch).glob("*.deb")
        subprocess.run(["dpkg-deb", "--extract", package, f"{scratch}/content"], check=True)
        Path(scratch, "content/usr/share/games/asc/music").rename(CACHE)
