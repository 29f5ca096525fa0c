"""POST /api/generate: two tracks become a job."""

import asyncio
import os
import uuid
from pathlib import Path

from aiohttp import BodyPartReader, web
from aiohttp.http import HttpProcessingError

from orchestrator import ffmpeg
from orchestrator.errors import RequestError
from orchestrator.files import JobFiles
from orchestrator.keys import CACHE, SETTINGS, TABLE, WORKER
from orchestrator.windows import read_windows

routes = web.RouteTableDef()

EXTENSIONS = (".mp3", ".m4a", ".wav", ".flac", ".ogg")
TRACK_FIELDS = {"track1": 1, "track2": 2}
TIME_FIELDS = tuple(
    f"{edge}_time{suffix}" for edge in ("start", "end") for suffix in ("", "_1", "_2")
)
CHUNK_BYTES = 256 * 1024
LONGEST_TIME = 64
# What aiohttp makes of a broken form, of a broken header in it, and of a body that breaks off.
MALFORMED = (ValueError, HttpProcessingError, web.RequestPayloadError, ConnectionError)


@routes.post("/api/generate")
async def generate(request: web.Request) -> web.Response:
    """Store both tracks and queue the job; answers once neither can be lost."""
    job_id = uuid.uuid4().hex
    files = request.app[CACHE].job(job_id)
    try:
        extensions, times = await _receive(request, files)
        windows = read_windows(times)
        await _check_audio(files, extensions)
        await request.app[TABLE].submit(job_id, extensions, windows)
    except BaseException:
        files.remove()
        raise
    request.app[WORKER].wake()
    return web.json_response(
        {"job_id": job_id, "status": "queued", "message": "Generation started"},
        status=202,
        headers={"Location": f"/api/status/{job_id}"},
    )


async def _receive(request: web.Request, files: JobFiles) -> tuple[tuple[str, str], dict[str, str]]:
    """Stream the tracks into the job's folder; returns their extensions and the time fields."""
    settings = request.app[SETTINGS]
    if (request.content_length or 0) > settings.max_body_bytes:
        raise RequestError(
            "request_too_large",
            f"The request has {request.content_length:,} bytes; at most "
            f"{settings.max_body_bytes:,} are taken",
            status=413,
        )
    if request.content_type != "multipart/form-data":
        raise RequestError(
            "not_multipart",
            f"The request is of type {request.content_type}; send track1 and track2 as files of "
            "multipart/form-data",
        )
    extensions: dict[str, str] = {}
    times: dict[str, str] = {}
    files.create()
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or part.name is None:
                raise RequestError("malformed_form", "A part of the form has no name")
            if part.name in extensions or part.name in times:
                raise RequestError("repeated_field", f"{part.name} was sent more than once")
            if part.name in TRACK_FIELDS:
                extension = _extension(part)
                upload = files.upload(TRACK_FIELDS[part.name], extension)
                await _store(part, upload, settings.max_track_bytes)
                extensions[part.name] = extension
            elif part.name in TIME_FIELDS:
                times[part.name] = (await part.read_chunk(LONGEST_TIME)).decode(errors="replace")
            else:
                fields = ", ".join([*TRACK_FIELDS, *TIME_FIELDS])
                raise RequestError(
                    "unknown_field", f"{part.name!r} is not a field; the fields are {fields}"
                )
    except MALFORMED as error:
        raise RequestError("malformed_form", f"The form cannot be read: {error}") from error
    for field in TRACK_FIELDS:
        if field not in extensions:
            raise RequestError("missing_field", f"{field} is missing; send it as a file")
    return (extensions["track1"], extensions["track2"]), times


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


async def _store(part: BodyPartReader, path: Path, limit: int) -> None:
    """Write an upload as it comes; whoever answers 202 has it on the disk for good."""
    size = 0
    with path.open("wb") as file:
        while chunk := await part.read_chunk(CHUNK_BYTES):
            size += len(chunk)
            if size > limit:
                raise RequestError("file_too_large", f"{part.name} is larger than {limit:,} bytes")
            await asyncio.to_thread(file.write, chunk)
        if size == 0:
            raise RequestError("empty_file", f"{part.name} is an empty file")
        file.flush()
        await asyncio.to_thread(os.fsync, file.fileno())


async def _check_audio(files: JobFiles, extensions: tuple[str, str]) -> None:
    uploads = [
        files.upload(track, extension)
        for track, extension in zip(TRACK_FIELDS.values(), extensions, strict=True)
    ]
    sound = await asyncio.gather(*(ffmpeg.has_audio(upload) for upload in uploads))
    for field, has_audio in zip(TRACK_FIELDS, sound, strict=True):
        if not has_audio:
            raise RequestError("not_audio", f"{field} holds no audio that can be decoded")
