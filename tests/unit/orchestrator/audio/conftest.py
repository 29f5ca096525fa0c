"""Real ffmpeg programs, and tracks for them to convert."""

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
    """The ffmpeg in use: the one on PATH, if available, then the wheel's."""
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
    """A function that returns a track of a given kind, created once."""
    folder = tmp_path_factory.mktemp("tracks")
    sound = tracks.varying_noise(SECONDS)
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            made[kind] = make_track(folder, kind, sound)
        return made[kind]

    return make


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """The path of a file to be created in an empty directory."""
    folder = tmp_path / "job"
    folder.mkdir()
    return folder / "track1.wav"


@pytest.fixture
def endless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A track that takes minutes to decode up to its window."""
    monkeypatch.setattr(cutting, "SEEK_AFTER_S", 1e9)
    return make_endless_wav(tmp_path / "endless.wav")
