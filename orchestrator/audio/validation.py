"""Validates tracks and reports problems as API errors."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import structlog

from orchestrator.audio.probing import has_audio
from orchestrator.errors import ConversionError, InputError, NotCheckedError

TRACK_FIELDS = {"track1": 1, "track2": 2}
EXTENSIONS = (".mp3", ".m4a", ".wav", ".flac", ".ogg")

RETRY_AFTER_S = 5

log = structlog.get_logger()


def check_name(field: str, name: str) -> str:
    """Returns the file extension, in lower case and with its dot.

    Raises:
        InputError: `unsupported_format`.
    """
    extension = Path(name).suffix.lower()
    if extension not in EXTENSIONS:
        raise InputError(
            "unsupported_format",
            f"{field} is named {name!r}; the name must end in {', '.join(EXTENSIONS)}",
        )
    return extension


def check_size(field: str, size: int, limit: int) -> None:
    """Checks the size of a file against the limit, both in bytes.

    Raises:
        InputError: `empty_file` or `file_too_large`.
    """
    if size == 0:
        raise InputError("empty_file", f"{field} is an empty file")
    if size > limit:
        raise InputError("file_too_large", f"{field} is larger than {limit:,} bytes")


async def check_audio(tracks: Mapping[str, Path]) -> None:
    """Checks that every track contains audio.

    Args:
        tracks: paths of the files, by form field.

    Raises:
        InputError: `not_audio`.
        TrackError: a track cannot be decoded within the limits.
        NotCheckedError: the tracks could not be checked.
    """
    try:
        sound = await asyncio.gather(*map(has_audio, tracks.values()))
    except ConversionError as error:
        log.error("tracks cannot be checked", reason=str(error))
        raise NotCheckedError(
            "The tracks cannot be checked at the moment; try again", retry_after_s=RETRY_AFTER_S
        ) from error
    for field, found in zip(tracks, sound, strict=True):
        if not found:
            raise InputError("not_audio", f"{field} contains no audio that can be decoded")
