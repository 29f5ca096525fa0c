"""Reads multipart forms: the two files and text fields of a job, or one file to check."""

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
# Bytes to parse before yielding to the event loop. Parsing them takes at most 2 ms; joining them
# takes up to 7 ms if each byte arrived in its own HTTP chunk.
PARSE_BYTES = 8 * 1024
WRITE_BYTES = 256 * 1024
MAX_BOUNDARY_LENGTH = 70  # RFC 2046
# Decodes any header bytes: some Windows programs send file names in encodings other than UTF-8.
ANY_BYTES = "latin-1"
MAX_TEXT_BYTES = 128
STALL_TIMEOUT_S = 60.0
# Raised by the parser for a malformed form, and by aiohttp for an incomplete body.
MALFORMED = (ValueError, HttpProcessingError, web.RequestPayloadError, ConnectionError)

# Parser output: a part with its headers, then chunks of its content, then None at its end.
Event = MultipartSegment | bytes | None


@dataclass(frozen=True)
class Track:
    """An uploaded file: its name in the job's workspace, size in bytes, and SHA-256."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True)
class Form:
    """The parsed form of a job."""

    tracks: tuple[Track, Track]
    windows: tuple[Window, Window]
    wanted_version: str | None

    @property
    def track_names(self) -> dict[str, str]:
        """Names of the files in the job's workspace, by form field."""
        return dict(zip(TRACK_FIELDS, (track.name for track in self.tracks), strict=True))

    @property
    def upload(self) -> Upload:
        """The part of the form that the job table stores."""
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
        """Hash of the whole form; identical requests have the same digest."""
        return _digest(self._content, self.wanted_version)

    @property
    def _content(self) -> str:
        """Hash of the tracks and windows, which determine the music together with the model."""
        windows = [(window.start, window.seconds) for window in self.windows]
        return _digest([track.digest for track in self.tracks], windows)


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def check_headers(request: web.Request, fields: Collection[str], limit: int) -> None:
    """Rejects a body that exceeds `limit` bytes or is not a form, before reading it.

    Raises:
        RequestError: `request_too_large` or `not_multipart`.
    """
    if (request.content_length or 0) > limit:
        raise RequestError(
            "request_too_large",
            f"The request is {request.content_length:,} bytes long; the maximum is {limit:,}",
            status=413,
        )
    kind = _mimetype(request)
    if (kind.type, kind.subtype) != ("multipart", "form-data"):
        raise RequestError(
            "not_multipart",
            f"Content-Type is {f'{kind.type}/{kind.subtype}'[:80]!r}; send "
            f"{' and '.join(fields)} in a form of type multipart/form-data",
        )


def _mimetype(request: web.Request) -> MimeType:
    """Parses the Content-Type; aiohttp's `content_type` takes 445 ms for some 8 kB headers."""
    return parse_mimetype(request.headers.get(hdrs.CONTENT_TYPE, ""))


async def read_form(request: web.Request, folder: Path, limit: int) -> Form:
    """Streams the tracks into `folder`, at most `limit` bytes each, and reads the text fields.

    Raises:
        RequestError: the form is invalid.
        InputError: a track or a time is invalid.
    """
    tracks, texts = await _read(request, folder, limit, TRACK_FIELDS, TEXT_FIELDS)
    both = (tracks["track1"], tracks["track2"])
    return Form(both, read_windows(texts), texts.get("model_version"))


async def read_track(request: web.Request, field: str, folder: Path, limit: int) -> Track:
    """Streams the only field of the form, a track, into `folder`.

    Raises:
        RequestError: the form is invalid.
        InputError: the track is invalid.
    """
    tracks, _ = await _read(request, folder, limit, [field], [])
    return tracks[field]


@asynccontextmanager
async def _stall_timeout() -> AsyncIterator[asyncio.Timeout]:
    """Raises RequestError if a form is malformed or incomplete, or stalls for STALL_TIMEOUT_S.

    The caller reschedules the timeout whenever data arrives.
    """
    try:
        async with asyncio.timeout(STALL_TIMEOUT_S) as timeout:
            yield timeout
    except MALFORMED as error:
        raise RequestError("malformed_form", f"The form cannot be read: {error}") from error
    except TimeoutError:
        raise RequestError(
            "upload_timeout",
            f"No data arrived for {STALL_TIMEOUT_S:g} s; send the request again",
            status=408,
        ) from None


async def _read(
    request: web.Request,
    folder: Path,
    limit: int,
    files: Collection[str],
    others: Collection[str],
) -> tuple[dict[str, Track], dict[str, str]]:
    """Reads all of `files`, which are required, and those of `others` that were sent."""
    tracks: dict[str, Track] = {}
    texts: dict[str, str] = {}
    async with _stall_timeout() as timeout:
        events = _events(request, len(files) + len(others))
        async for part in events:
            name, filename = _names(part)
            if name is None:
                raise RequestError(
                    "malformed_form",
                    "A part of the form has no field name in its Content-Disposition",
                )
            if name in tracks or name in texts:
                raise repeated_field(name)
            content = _content(events)
            if name in files:
                path = folder / _upload_name(name, filename)
                tracks[name] = await _store(content, name, path, limit, timeout)
            elif name in others:
                texts[name] = await _text(content, name)
            else:
                raise unknown_field(name, [*files, *others])
        for field in files:
            if field not in tracks:
                raise RequestError("missing_field", f"{field} is missing; send it as a file")
    return tracks, texts


async def _events(request: web.Request, fields: int) -> AsyncIterator[Event]:
    """Parses the body as it arrives; the work per byte is bounded.

    Raises:
        RequestError: `malformed_form`: the boundary is invalid, or the body does not begin with it.
        ValueError: the form is malformed, ends too early, or has too many parts.
    """
    boundary = _mimetype(request).parameters.get("boundary", "")
    if not 0 < len(boundary) <= MAX_BOUNDARY_LENGTH:
        raise RequestError(
            "malformed_form",
            f"Content-Type has a boundary of {len(boundary)} characters; it must have 1 to "
            f"{MAX_BOUNDARY_LENGTH}",
        )
    # One part more than allowed, so that the error can name the extra field.
    parser = PushMultipartParser(
        boundary, max_segment_count=fields + 1, header_charset=ANY_BYTES, strict=True
    )
    chunk, event = await _opening_boundary(request, f"--{boundary}".encode()), None
    while chunk:
        for event in parser.parse(chunk):
            yield event
        if event is None and _is_complete(parser):
            return  # ignore what follows; in strict mode the parser would reject it
        chunk = await request.content.read(PARSE_BYTES)
        # Reading does not yield to the event loop while buffered bytes are left.
        await asyncio.sleep(0)
    parser.close()


def _is_complete(parser: PushMultipartParser) -> bool:
    """Returns whether the final boundary has been parsed."""
    try:
        copy(parser).close()  # closing the parser itself would end the parsing
    except MultipartError:
        return False
    return True


async def _opening_boundary(request: web.Request, boundary: bytes) -> bytes:
    """Reads the boundary with which the body must begin."""
    try:
        opening = await request.content.readexactly(len(boundary))
    except asyncio.IncompleteReadError as error:
        opening = error.partial
    if opening != boundary:
        raise RequestError(
            "malformed_form",
            f"The form begins with {opening!r}; it must begin with its boundary, {boundary!r}",
        )
    return opening


def _names(part: Event) -> tuple[str | None, str | None]:
    """Returns the field name and the file name of a part."""
    assert isinstance(part, MultipartSegment)  # noqa: S101 - for mypy
    disposition = part.header(hdrs.CONTENT_DISPOSITION).encode(ANY_BYTES).decode(errors="replace")
    _, parameters = parse_content_disposition(disposition)
    return (
        content_disposition_filename(parameters, "name"),
        content_disposition_filename(parameters, "filename"),
    )


async def _content(events: AsyncIterator[Event]) -> AsyncIterator[bytes]:
    """Yields the content of the current part."""
    while (chunk := await anext(events)) is not None:
        assert isinstance(chunk, bytes)  # noqa: S101 - for mypy
        yield chunk


async def _text(content: AsyncIterator[bytes], field: str) -> str:
    text = b""
    async for chunk in content:
        text += chunk
        if len(text) > MAX_TEXT_BYTES:
            raise RequestError("malformed_form", f"{field} is longer than {MAX_TEXT_BYTES} bytes")
    return text.decode(errors="replace")


def repeated_field(field: str) -> RequestError:
    """Returns the error for a field that was sent more than once."""
    return RequestError("repeated_field", f"{field} was sent more than once; send it once")


def unknown_field(field: str, known: Iterable[str]) -> RequestError:
    """Returns the error for a field that does not exist."""
    fields = ", ".join(known)
    return RequestError("unknown_field", f"{field!r} is not a valid field; the fields are {fields}")


def _upload_name(field: str, filename: str | None) -> str:
    if filename is None:
        raise RequestError("not_a_file", f"{field} was sent as text; send it as a file")
    return upload_name(TRACK_FIELDS[field], check_name(field, filename))


async def _store(
    content: AsyncIterator[bytes], field: str, path: Path, limit: int, timeout: asyncio.Timeout
) -> Track:
    """Writes an upload to `path` as it arrives; each chunk restarts `timeout`."""
    size, digest, waiting = 0, hashlib.sha256(), bytearray()
    with path.open("wb") as file:

        def write() -> None:
            file.write(waiting)
            digest.update(waiting)
            waiting.clear()

        async for chunk in content:
            timeout.reschedule(asyncio.get_running_loop().time() + STALL_TIMEOUT_S)
            size += len(chunk)
            check_size(field, size, limit)
            waiting += chunk
            if len(waiting) >= WRITE_BYTES:
                await asyncio.to_thread(write)
        await asyncio.to_thread(write)
    check_size(field, size, limit)
    return Track(path.name, size, digest.hexdigest())
