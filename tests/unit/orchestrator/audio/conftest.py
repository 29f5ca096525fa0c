"""Real ffmpegs, and what they convert."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.audio import cutting
from orchestrator.audio.ffmpeg import find_ffmpeg
from tests.support import tracks
from tests.support.tracks import SECONDS, make_endless_wav, make_track

FFMPEGS = [*(["path"] if shutil.which("ffmpeg") else []), "wheel"]


@pytest.fixture(params=FFMPEGS)
def ffmpeg(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The ffmpeg that is used: the one on PATH, if any, and the wheel's."""
    if request.param == "wheel":
        monkeypatch.delenv("IMAGEIO_FFMPEG_EXE", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
        assert "imageio_ffmpeg" in str(find_ffmpeg())
    else:
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "ffmpeg")
        assert "imageio_ffmpeg" not in str(find_ffmpeg())
    return find_ffmpeg()


@pytest.fixture(scope="package")
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


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A file in a folder with nothing else in it."""
    folder = tmp_path / "job"
    folder.mkdir()
    return folder / "track1.wav"


@pytest.fixture
def endless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A track that takes minutes to decode up to its window."""
    monkeypatch.setattr(cutting, "SEEK_AFTER_S", 1e9)
    return make_endless_wav(tmp_path / "endless.wav")
