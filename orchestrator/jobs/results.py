"""The result of a completed job."""

from contextlib import suppress

from orchestrator.storage.base import GENERATED, JobStorage, part_name


async def finalize_result(storage: JobStorage, job_id: str, lease: int) -> None:
    """Give the result that was accepted its name, and delete all else of a completed job.

    May be repeated, and done by several at once: the row says which result it is.
    """
    names = await storage.list_names(job_id)
    if part_name(lease) in names:
        with suppress(FileNotFoundError):  # somebody else was quicker
            await storage.rename(job_id, part_name(lease), GENERATED)
    await storage.delete(job_id, *(names - {GENERATED, part_name(lease)}))
