"""Reads the forms of requests: the two files and some texts of a job, or one file to be checked."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import BodyPartReader, web
from aiohttp.http import HttpProcessingError

from orchestrator.errors import RequestError
from orchestrator.files import upload_name
from orchestrator.jobs import Upload
from orchestrator.tracks import TRACK_FIELDS, check_name, check_size
from orchestrator.windows import Window, read_windows

TIME_FIELDS = tuple(
    f"{edge}_time{suffix}" for edge in ("start", "end") for suffix in ("", "_1", "_2")
)
TEXT_FIELDS = (*TIME_FIELDS, "model_version")
CHUNK_BYTES = 256 * 1024
LONGEST_TEXT = 128
STALLED_S = 60.0
# What aiohttp makes of a broken form, of a broken header in it, and of a body that breaks off.
MALFORMED = (ValueError, HttpProcessingError, web.RequestPayloadError, ConnectionError)


@dataclass(frozen=True)
class Track:
    """An uploaded file: its name in the job's workspace, size in bytes, and SHA-256."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True)
class Form:
    """All that was sent."""

    tracks: tuple[Track, Track]
    windows: tuple[Window, Window]
    wanted_version: str | None

    @property
    def names(self) -> list[str]:
        """Of both files in the job's workspace."""
        return [track.name for track in self.tracks]

    @property
    def upload(self) -> Upload:
        """What the job table keeps of it."""
        first, second = (Path(name).suffix for name in self.names)
        return Upload(
            extensions=(first, second),
            windows=self.windows,
            content=self._content,
            wanted_version=self.wanted_version,
            size=sum(track.size for track in self.tracks),
        )

    @property
    def digest(self) -> str:
        """Tells whether a request is the same as another."""
        return _digest(self._content, self.wanted_version)

    @property
    def _content(self) -> str:
        """Of what the music depends on, beside the model."""
        windows = [(window.start, window.seconds) for window in self.windows]
        return _digest([track.digest for track in self.tracks], windows)


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def check_headers(request: web.Request, fields: Collection[str], limit: int) -> None:
    """Refuse, before it is read, what has more than `limit` bytes or is no form.

    Raises:
        RequestError: `request_too_large` or `not_multipart`.
    """
    if (request.content_length or 0) > limit:
        raise RequestError(
            "request_too_large",
            f"The request has {request.content_length:,} bytes; at most {limit:,} are taken",
            status=413,
        )
    if request.content_type != "multipart/form-data":
        raise RequestError(
            "not_multipart",
            f"The request is of type {request.content_type}; send {' and '.join(fields)} in a form "
            "of type multipart/form-data",
        )


async def read_form(request: web.Request, folder: Path, limit: int) -> Form:
    """Stream the tracks into the folder, at most `limit` bytes each, and read the other fields.

    Raises:
        RequestError: the form, a file or a time is at fault.
    """
    tracks, texts = await _read(request, folder, limit, TRACK_FIELDS, TEXT_FIELDS)
    both = (tracks["track1"], tracks["track2"])
    return Form(both, read_windows(texts), texts.get("model_version"))


async def read_track(request: web.Request, field: str, folder: Path, limit: int) -> Track:
    """Stream the one track of a form that has nothing else into the folder.

    Raises:
        RequestError: the form or the file is at fault.
    """
    tracks, _ = await _read(request, folder, limit, [field], [])
    return tracks[field]


@asynccontextmanager
async def _patience() -> AsyncIterator[asyncio.Timeout]:
    """Tells the client of a form that breaks off or stands still."""
    try:
        async with asyncio.timeout(STALLED_S) as patience:
            yield patience
    except MALFORMED as error:
        raise RequestError("malformed_form", f"The form cannot be read: {error}") from error
    except TimeoutError:
        raise RequestError(
            "upload_timeout", f"Nothing came for {STALLED_S:g} s; send it again", status=408
        ) from None


async def _read(
    request: web.Request,
    folder: Path,
    limit: int,
    files: Collection[str],
    others: Collection[str],
) -> tuple[dict[str, Track], dict[str, str]]:
    """All of these files, and those of the other fields that were sent."""
    tracks: dict[str, Track] = {}
    texts: dict[str, str] = {}
    async with _patience() as patience:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or part.name is None:
                raise RequestError("malformed_form", "A part of the form has no name")
            if part.name in tracks or part.name in texts:
                raise repeated(part.name)
            if part.name in files:
                tracks[part.name] = await _store(part, part.name, folder, limit, patience)
            elif part.name in others:
                # A byte more than may be, so that a longer text is not taken for its beginning.
                text = await part.read_chunk(LONGEST_TEXT + 1)
                texts[part.name] = text.decode(errors="replace")
            else:
                raise unknown(part.name, [*files, *others])
        for field in files:
            if field not in tracks:
                raise RequestError("missing_field", f"{field} is missing; send it as a file")
    return tracks, texts


def repeated(field: str) -> RequestError:
    """What is answered to a field that comes once too often."""
    return RequestError("repeated_field", f"{field} was sent more than once")


def unknown(field: str, known: Iterable[str]) -> RequestError:
    """What is answered to a field that is not among those that there are."""
    fields = ", ".join(known)
    return RequestError("unknown_field", f"{field!r} is not a field; the fields are {fields}")


async def _store(
    part: BodyPartReader, field: str, folder: Path, limit: int, patience: asyncio.Timeout
) -> Track:
    """Write an upload as it comes, however long it takes, but not however slowly."""
    if part.filename is None:
        raise RequestError("not_a_file", f"{field} was sent as text; send it as a file")
    path = folder / upload_name(TRACK_FIELDS[field], check_name(field, part.filename))
    size, digest = 0, hashlib.sha256()
    with path.open("wb") as file:

        def take(chunk: bytes) -> None:
            file.write(chunk)
            digest.update(chunk)

        while chunk := await part.read_chunk(CHUNK_BYTES):
            patience.reschedule(asyncio.get_running_loop().time() + STALLED_S)
            size += len(chunk)
            check_size(field, size, limit)
            await asyncio.to_thread(take, chunk)
    check_size(field, size, limit)
    return Track(path.name, size, digest.hexdigest())
