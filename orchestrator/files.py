"""A job's files: `music_{job_id}/` in the cache folder, and what lies there at which time.

    upload      track1.<ext>   track2.<ext>     until both are converted
    converted   track1.wav     track2.wav       until the music is generated
    generated   generated.wav                   until download and cleanup

An upload may itself be called track1.wav, so a conversion is written beside it first and takes its
place only once the job table says that both are done.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

TRACKS = (1, 2)


@dataclass(frozen=True)
class JobFiles:
    """The folder of one job."""

    folder: Path

    def upload(self, track: int, extension: str) -> Path:
        return self.folder / f"track{track}{extension}"

    def conversion(self, track: int) -> Path:
        """Where a track is converted to, before it takes the upload's place."""
        return self.folder / f"track{track}.converted"

    def wav(self, track: int) -> Path:
        return self.folder / f"track{track}.wav"

    @property
    def generated(self) -> Path:
        return self.folder / "generated.wav"

    def create(self) -> None:
        self.folder.mkdir(parents=True)

    def replace_uploads(self, extensions: tuple[str, str]) -> None:
        """Put both conversions in the place of the uploads; may be repeated after a crash."""
        for track, extension in zip(TRACKS, extensions, strict=True):
            if self.conversion(track).exists():
                self.conversion(track).replace(self.wav(track))
            if self.upload(track, extension) != self.wav(track):
                self.upload(track, extension).unlink(missing_ok=True)

    def write_generated(self, wav: bytes, attempt: int) -> None:
        """Write the result so that it is whole or not there."""
        part = self.folder / f"generated.{attempt}.part"
        with part.open("wb") as file:
            file.write(wav)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.generated)

    def keep_generated_only(self) -> None:
        for path in self.folder.iterdir():
            if path != self.generated:
                path.unlink()

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class Cache:
    """The folder of all jobs."""

    root: Path

    def job(self, job_id: str) -> JobFiles:
        return JobFiles(self.root / f"music_{job_id}")
