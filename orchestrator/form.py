"""Reads the form of a request to generate: two files and some texts."""

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path

from aiohttp import BodyPartReader, web
from aiohttp.http import HttpProcessingError

from orchestrator.errors import RequestError
from orchestrator.files import upload_name
from orchestrator.jobs import Upload
from orchestrator.windows import Window, read_windows

EXTENSIONS = (".mp3", ".m4a", ".wav", ".flac", ".ogg")
TRACK_FIELDS = {"track1": 1, "track2": 2}
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


async def read_form(request: web.Request, folder: Path, limit: int) -> Form:
    """Stream the tracks into the folder, at most `limit` bytes each, and read the other fields.

    Raises:
        RequestError: the form, a file or a time is at fault.
    """
    try:
        async with asyncio.timeout(STALLED_S) as patience:
            return await _read_parts(request, folder, limit, patience)
    except MALFORMED as error:
        raise RequestError("malformed_form", f"The form cannot be read: {error}") from error
    except TimeoutError:
        raise RequestError(
            "upload_timeout", f"Nothing came for {STALLED_S:g} s; send it again", status=408
        ) from None


async def _read_parts(
    request: web.Request, folder: Path, limit: int, patience: asyncio.Timeout
) -> Form:
    tracks: dict[str, Track] = {}
    texts: dict[str, str] = {}
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader) or part.name is None:
            raise RequestError("malformed_form", "A part of the form has no name")
        if part.name in tracks or part.name in texts:
            raise RequestError("repeated_field", f"{part.name} was sent more than once")
        if part.name in TRACK_FIELDS:
            name = upload_name(TRACK_FIELDS[part.name], _extension(part))
            tracks[part.name] = await _store(part, folder / name, limit, patience)
        elif part.name in TEXT_FIELDS:
            # A byte more than may be, so that a longer text is not taken for its beginning.
            text = await part.read_chunk(LONGEST_TEXT + 1)
            texts[part.name] = text.decode(errors="replace")
        else:
            fields = ", ".join([*TRACK_FIELDS, *TEXT_FIELDS])
            raise RequestError(
                "unknown_field", f"{part.name!r} is not a field; the fields are {fields}"
            )
    for field in TRACK_FIELDS:
        if field not in tracks:
            raise RequestError("missing_field", f"{field} is missing; send it as a file")
    both = (tracks["track1"], tracks["track2"])
    return Form(both, read_windows(texts), texts.get("model_version"))


def _extension(part: BodyPartReader) -> str:
    if part.filename is None:
        raise RequestError("not_a_file", f"{part.name} was sent as text; send it as a file")
    extension = Path(part.filename).suffix.lower()
    if extension not in EXTENSIONS:
        raise RequestError(
            "unsupported_format",
            f"{part.name} is called {part.filename!r}; its name has to end in "
            f"{', '.join(EXTENSIONS)}",
        )
    return extension


async def _store(part: BodyPartReader, path: Path, limit: int, patience: asyncio.Timeout) -> Track:
    """Write an upload as it comes, however long it takes, but not however slowly."""
    size, digest = 0, hashlib.sha256()
    with path.open("wb") as file:

        def take(chunk: bytes) -> None:
            file.write(chunk)
            digest.update(chunk)

        while chunk := await part.read_chunk(CHUNK_BYTES):
            patience.reschedule(asyncio.get_running_loop().time() + STALLED_S)
            size += len(chunk)
            if size > limit:
                raise RequestError("file_too_large", f"{part.name} is larger than {limit:,} bytes")
            await asyncio.to_thread(take, chunk)
    if size == 0:
        raise RequestError("empty_file", f"{part.name} is an empty file")
    return Track(path.name, size, digest.hexdigest())
