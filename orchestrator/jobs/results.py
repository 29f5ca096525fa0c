"""The result of a completed job."""

from contextlib import suppress

from orchestrator.storage.base import GENERATED, JobStorage, part_name


async def finalize_result(storage: JobStorage, job_id: str, lease: int) -> None:
    """Renames the accepted result to its final name, and deletes the job's other files.

    Idempotent and safe to run concurrently: the lease number in the row identifies the result.
    """
    names = await storage.list_names(job_id)
    if part_name(lease) in names:
        with suppress(FileNotFoundError):  # another process renamed it first
            await storage.rename(job_id, part_name(lease), GENERATED)
    await storage.delete(job_id, *(names - {GENERATED, part_name(lease)}))
