"""Reads the forms of requests: the two files and some texts of a job, or one file to be checked."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path

from aiohttp import content_disposition_filename, hdrs, parse_content_disposition, web
from aiohttp.helpers import MimeType, parse_mimetype
from aiohttp.http import HttpProcessingError
from multipart import MultipartError, MultipartSegment, PushMultipartParser

from orchestrator.api.errors import RequestError
from orchestrator.audio.validation import TRACK_FIELDS, check_name, check_size
from orchestrator.audio.window import Window, read_windows
from orchestrator.jobs.job import Upload
from orchestrator.storage.base import upload_name

TIME_FIELDS = tuple(
    f"{edge}_time{suffix}" for edge in ("start", "end") for suffix in ("", "_1", "_2")
)
TEXT_FIELDS = (*TIME_FIELDS, "model_version")
# Bytes that are parsed at once. That takes 2 ms at most, but up to 7 ms to join them where each
# arrived in an HTTP chunk of its own.
PARSED_BYTES = 8 * 1024
WRITTEN_BYTES = 256 * 1024
LONGEST_BOUNDARY = 70  # RFC 2046
# Names of files are in UTF-8, but for some programs on Windows, whose names are not refused either.
ANY_BYTES = "latin-1"
LONGEST_TEXT = 128
STALLED_S = 60.0
# Raised by the parser for a broken form, and by aiohttp for a body that breaks off.
MALFORMED = (ValueError, HttpProcessingError, web.RequestPayloadError, ConnectionError)

# What the parser finds: a part with its headers, pieces of the part's content, None at its end.
Event = MultipartSegment | bytes | None


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
    def track_names(self) -> dict[str, str]:
        """The files in the job's workspace, by form field."""
        return dict(zip(TRACK_FIELDS, (track.name for track in self.tracks), strict=True))

    @property
    def upload(self) -> Upload:
        """What the job table keeps of it."""
        first, second = (Path(name).suffix for name in self.track_names.values())
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
    kind = _mimetype(request)
    if (kind.type, kind.subtype) != ("multipart", "form-data"):
        raise RequestError(
            "not_multipart",
            f"The request is of type {f'{kind.type}/{kind.subtype}'[:80]!r}; send "
            f"{' and '.join(fields)} in a form of type multipart/form-data",
        )


def _mimetype(request: web.Request) -> MimeType:
    """The Content-Type; aiohttp's `content_type` takes 445 ms for some headers of 8 kB."""
    return parse_mimetype(request.headers.get(hdrs.CONTENT_TYPE, ""))


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
        events = _events(request, len(files) + len(others))
        async for part in events:
            name, filename = _names(part)
            if name is None:
                raise RequestError("malformed_form", "A part of the form has no name")
            if name in tracks or name in texts:
                raise repeated(name)
            content = _content(events)
            if name in files:
                path = folder / _upload_name(name, filename)
                tracks[name] = await _store(content, name, path, limit, patience)
            elif name in others:
                texts[name] = await _text(content, name)
            else:
                raise unknown(name, [*files, *others])
        for field in files:
            if field not in tracks:
                raise RequestError("missing_field", f"{field} is missing; send it as a file")
    return tracks, texts


async def _events(request: web.Request, fields: int) -> AsyncIterator[Event]:
    """Parse the body as it arrives; the work for each byte is bounded.

    Raises:
        RequestError: `malformed_form`: it does not begin with its boundary.
        ValueError: it is malformed, ends too early, or has too many parts.
    """
    boundary = _mimetype(request).parameters.get("boundary", "")
    if not 0 < len(boundary) <= LONGEST_BOUNDARY:
        raise RequestError(
            "malformed_form",
            f"Content-Type has a boundary of {len(boundary)} characters; it has to have 1 to "
            f"{LONGEST_BOUNDARY}",
        )
    # One part more, so that the error can name it.
    parser = PushMultipartParser(
        boundary, max_segment_count=fields + 1, header_charset=ANY_BYTES, strict=True
    )
    chunk, event = await _opening(request, f"--{boundary}".encode()), None
    while chunk:
        for event in parser.parse(chunk):
            yield event
        if event is None and _is_complete(parser):
            return  # what follows is ignored; in strict mode it would be an error
        chunk = await request.content.read(PARSED_BYTES)
        # Reading yields to nobody while there are bytes that have come already.
        await asyncio.sleep(0)
    parser.close()


def _is_complete(parser: PushMultipartParser) -> bool:
    """Whether the last boundary has been parsed."""
    try:
        copy(parser).close()  # of the parser itself, that would be the end
    except MultipartError:
        return False
    return True


async def _opening(request: web.Request, boundary: bytes) -> bytes:
    """Read the boundary with which the body has to begin."""
    try:
        opening = await request.content.readexactly(len(boundary))
    except asyncio.IncompleteReadError as error:
        opening = error.partial
    if opening != boundary:
        raise RequestError(
            "malformed_form",
            f"The form begins with {opening!r}; it has to begin with its boundary, {boundary!r}",
        )
    return opening


def _names(part: Event) -> tuple[str | None, str | None]:
    """The names of a part's field and file."""
    assert isinstance(part, MultipartSegment)  # noqa: S101 - for mypy
    disposition = part.header(hdrs.CONTENT_DISPOSITION).encode(ANY_BYTES).decode(errors="replace")
    _, parameters = parse_content_disposition(disposition)
    return (
        content_disposition_filename(parameters, "name"),
        content_disposition_filename(parameters, "filename"),
    )


async def _content(events: AsyncIterator[Event]) -> AsyncIterator[bytes]:
    """The content of the part that has just begun."""
    while (chunk := await anext(events)) is not None:
        assert isinstance(chunk, bytes)  # noqa: S101 - for mypy
        yield chunk


async def _text(content: AsyncIterator[bytes], field: str) -> str:
    text = b""
    async for chunk in content:
        text += chunk
        if len(text) > LONGEST_TEXT:
            raise RequestError("malformed_form", f"{field} has more than {LONGEST_TEXT} bytes")
    return text.decode(errors="replace")


def repeated(field: str) -> RequestError:
    """What is answered to a field that comes once too often."""
    return RequestError("repeated_field", f"{field} was sent more than once")


def unknown(field: str, known: Iterable[str]) -> RequestError:
    """What is answered to a field that is not among those that there are."""
    fields = ", ".join(known)
    return RequestError("unknown_field", f"{field!r} is not a field; the fields are {fields}")


def _upload_name(field: str, filename: str | None) -> str:
    if filename is None:
        raise RequestError("not_a_file", f"{field} was sent as text; send it as a file")
    return upload_name(TRACK_FIELDS[field], check_name(field, filename))


async def _store(
    content: AsyncIterator[bytes], field: str, path: Path, limit: int, patience: asyncio.Timeout
) -> Track:
    """Write an upload as it comes, however long it takes, but not however slowly."""
    size, digest, waiting = 0, hashlib.sha256(), bytearray()
    with path.open("wb") as file:

        def write() -> None:
            file.write(waiting)
            digest.update(waiting)
            waiting.clear()

        async for chunk in content:
            patience.reschedule(asyncio.get_running_loop().time() + STALLED_S)
            size += len(chunk)
            check_size(field, size, limit)
            waiting += chunk
            if len(waiting) >= WRITTEN_BYTES:
                await asyncio.to_thread(write)
        await asyncio.to_thread(write)
    check_size(field, size, limit)
    return Track(path.name, size, digest.hexdigest())
