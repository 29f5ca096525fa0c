"""What becomes of a job: its status, its music, its end."""

from typing import Any

from aiohttp import web

from orchestrator.errors import RequestError
from orchestrator.jobs import Job, iso_time
from orchestrator.keys import CACHE, TABLE, WORKER

routes = web.RouteTableDef()

DOWNLOAD_NAME = "generated_music.wav"


@routes.get("/api/status/{job_id}")
async def status(request: web.Request) -> web.Response:
    job = await _job(request)
    document: dict[str, Any] = {
        "job_id": job.id,
        "status": job.state,
        "progress": job.progress,
        "message": job.message,
        "created_at": iso_time(job.created_at),
        "started_at": None if job.started_at is None else iso_time(job.started_at),
        "finished_at": None if job.finished_at is None else iso_time(job.finished_at),
        "attempts": job.attempt,
    }
    if job.state == "queued":
        document["queue_position"] = await request.app[TABLE].queue_position(job)
    if job.error_code is not None:
        document["error_code"] = job.error_code
    return web.json_response(document, headers={"Cache-Control": "no-store"})


@routes.get("/api/download/{job_id}")
async def download(request: web.Request) -> web.StreamResponse:
    job = await _job(request)
    if job.state != "completed":
        raise RequestError("not_ready", f"The job is {job.state}; there is nothing to download")
    headers = {
        "Content-Type": "audio/wav",
        "Content-Disposition": f'attachment; filename="{DOWNLOAD_NAME}"',
    }
    return web.FileResponse(request.app[CACHE].job(job.id).generated, headers=headers)


@routes.delete("/api/cleanup/{job_id}")
async def cleanup(request: web.Request) -> web.Response:
    """Cancel the job if it is not done yet, and remove all there is of it."""
    job = await _job(request)
    await request.app[WORKER].abandon(job.id)
    if not await request.app[TABLE].delete(job.id):
        raise _not_found()
    request.app[CACHE].job(job.id).remove()
    return web.json_response({"message": "Job cleaned up successfully"})


async def _job(request: web.Request) -> Job:
    job = await request.app[TABLE].get(request.match_info["job_id"])
    if job is None:
        raise _not_found()
    return job


def _not_found() -> RequestError:
    return RequestError("job_not_found", "Job not found", status=404)
