"""Job storage in an S3-compatible bucket."""

import os
import re
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import ObjectStore, S3Store

from orchestrator.concurrency import run_in_thread
from orchestrator.errors import SettingsError
from orchestrator.filesystem import atomic_write
from orchestrator.storage.base import (
    JOB_PREFIX,
    MARKER,
    QUARANTINE,
    JobStorage,
    check_owner,
    folder_name,
    job_ids_of,
    make_folder,
    one_line_reason,
    plain_name,
    storage_errors,
)
from orchestrator.storage.folders import job_ids_in, remove_folder, unlink_files

# The read timeout applies to each part of an upload and each chunk of a download. No retry starts
# after RETRY_FOR, so an outage is reported within 20 s. The number of retries until then is
# practically unlimited, so a shorter outage goes unnoticed.
CONNECT_TIMEOUT = timedelta(seconds=5)
READ_TIMEOUT = timedelta(seconds=10)
DOWNLOAD_TIMEOUT = timedelta(minutes=5)
RETRY_FOR = timedelta(seconds=10)
FIRST_BACKOFF = timedelta(milliseconds=100)
LONGEST_BACKOFF = timedelta(seconds=2)
RETRIES = 100

# Parts are 5 MB, so an upload of any size uses 10 MB of memory.
PARTS_AT_ONCE = 2
CHUNK = 2**20


class S3Storage(JobStorage):
    """Stores the files as objects `music_{job_id}/<name>`, below the prefix of the store.

    Args:
        store: the bucket, which limits its own retries.
        scratch: the directory of this host's workspaces.
        url: URL of the bucket, for error messages.
    """

    def __init__(self, store: ObjectStore, scratch: Path, url: str) -> None:
        super().__init__(scratch)
        self._store = store
        self._url = url

    async def claim(self, database_id: str) -> None:
        with storage_errors(f"reading the owner of {self._url}"):
            owner = await self._owner() or await self._create_marker(database_id)
        marker = f"the object {MARKER}"
        check_owner(owner, database_id, "MUSICLAB_FILES_URL", self._url, marker)

    async def _owner(self) -> str | None:
        try:
            found = await self._store.get_async(MARKER)
        except FileNotFoundError as error:
            if "<Code>NoSuchBucket<" in str(error):
                raise
            return None
        return bytes(await found.bytes_async()).decode(errors="replace").strip()

    async def _create_marker(self, database_id: str) -> str | None:
        with suppress(AlreadyExistsError):  # another process created it first
            await self._store.put_async(MARKER, database_id.encode(), mode="create")
        return await self._owner()

    async def persist(self, job_id: str, *names: str) -> None:
        for name in names:
            path, key = self._path(job_id, name), _object_key(job_id, name)
            with storage_errors(f"uploading {name} of job {job_id}"):
                await self._store.put_async(key, path, max_concurrency=PARTS_AT_ONCE)

    async def fetch(self, job_id: str, name: str) -> Path:
        path = self._path(job_id, name)
        with storage_errors(f"downloading {name} of job {job_id}"):
            if not await run_in_thread(path.exists):
                await self._download(_object_key(job_id, name), path)
        return path

    async def read(self, job_id: str, name: str) -> bytes:
        """Reads from the bucket, never from the workspace."""
        with storage_errors(f"reading {name} of job {job_id}"):
            found = await self._store.get_async(_object_key(job_id, name))
            return bytes(await found.bytes_async())

    async def list_names(self, job_id: str) -> set[str]:
        with storage_errors(f"listing the files of job {job_id}"):
            return {key.rpartition("/")[2] for key in await self._keys(job_id)}

    async def rename(self, job_id: str, old: str, new: str) -> None:
        with storage_errors(f"renaming {old} of job {job_id} to {new}"):
            await self._store.copy_async(_object_key(job_id, old), _object_key(job_id, new))
            await self._store.delete_async([_object_key(job_id, old)])
            await run_in_thread(unlink_files, self._path(job_id, old), self._path(job_id, new))

    async def copy(self, job_id: str, name: str, to_job_id: str) -> None:
        with storage_errors(f"copying {name} of job {job_id} to job {to_job_id}"):
            await self._store.copy_async(_object_key(job_id, name), _object_key(to_job_id, name))
        await self.create(to_job_id)

    async def delete(self, job_id: str, *names: str) -> None:
        paths = [self._path(job_id, name) for name in names]
        with storage_errors(f"deleting files of job {job_id}"):
            await self._store.delete_async([_object_key(job_id, name) for name in names])
            await run_in_thread(unlink_files, *paths)

    async def release_workspace(self, job_id: str) -> None:
        with storage_errors(f"deleting the workspace of job {job_id}"):
            await run_in_thread(remove_folder, self.workspace(job_id))

    async def remove(self, job_id: str) -> None:
        await self.release_workspace(job_id)  # first, so that nothing more is uploaded from here
        with storage_errors(f"deleting the files of job {job_id}"):
            while keys := await self._keys(job_id):
                await self._store.delete_async(keys)

    async def job_ids(self) -> set[str]:
        with storage_errors("listing the jobs that have files"):
            # Not by prefix: some servers still list a prefix after all its objects are deleted.
            listed = await self._store.list().collect_async()
            here = await run_in_thread(job_ids_in, self._root)
        kept = job_ids_of({each["path"].partition("/")[0] for each in listed})
        return here | (kept - job_ids_of({each["path"].rpartition("/")[2] for each in listed}))

    async def quarantine(self, job_id: str) -> None:
        """Creates a marker object, because objects cannot be moved."""
        await self.release_workspace(job_id)
        with storage_errors(f"quarantining the files of job {job_id}"):
            if await self._keys(job_id):
                await self._store.put_async(_quarantine_key(job_id), b"")

    async def restore(self, job_id: str) -> None:
        with storage_errors(f"restoring the files of job {job_id}"):
            await self._store.delete_async([_quarantine_key(job_id)])

    async def discard(self, job_id: str) -> None:
        await self.remove(job_id)
        await self.restore(job_id)

    async def quarantined(self) -> dict[str, float]:
        with storage_errors("listing the quarantined jobs"):
            listed = await self._store.list(QUARANTINE).collect_async()
        return {
            each["path"].rpartition("/")[2].removeprefix(JOB_PREFIX): (
                each["last_modified"].timestamp()
            )
            for each in listed
        }

    async def _keys(self, job_id: str) -> list[str]:
        listed = await self._store.list(folder_name(job_id)).collect_async()
        return [each["path"] for each in listed]

    async def _download(self, key: str, path: Path) -> None:
        """Downloads an object to a path atomically."""
        found = await self._store.get_async(key)
        await run_in_thread(make_folder, path.parent)
        with atomic_write(path) as part, part.open("wb") as file:
            async for chunk in found.stream(min_chunk_size=CHUNK):
                await run_in_thread(file.write, chunk)


def open_bucket(url: str, scratch: Path) -> S3Storage:
    """Returns the storage at `s3://bucket/prefix`, with its workspaces below `scratch`.

    Keys, endpoint and region come from the environment (`AWS_*`). No request is sent.

    Raises:
        SettingsError: the URL or the environment variables are invalid.
    """
    match = re.fullmatch(r"s3://([\w.-]+)(?:/([^?#]*))?", url)
    if match is None:
        raise SettingsError(
            f"MUSICLAB_FILES_URL is {url!r}; it must be s3://bucket or s3://bucket/prefix, or "
            "empty to use the directory MUSICLAB_CACHE"
        )
    try:
        store = S3Store(
            match[1],
            prefix=match[2],
            client_options={
                "allow_http": os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"),
                "connect_timeout": CONNECT_TIMEOUT,
                "read_timeout": READ_TIMEOUT,
                "timeout": DOWNLOAD_TIMEOUT,
            },
            retry_config={
                "max_retries": RETRIES,
                "retry_timeout": RETRY_FOR,
                "backoff": {"init_backoff": FIRST_BACKOFF, "max_backoff": LONGEST_BACKOFF},
            },
        )
    except (BaseError, ValueError) as error:
        raise SettingsError(
            f"MUSICLAB_FILES_URL is {url!r}, and its bucket cannot be used with the current AWS_* "
            f"variables: {one_line_reason(error)}"
        ) from None
    return S3Storage(store, scratch, url)


def _object_key(job_id: str, name: str) -> str:
    return f"{folder_name(job_id)}/{plain_name(name)}"


def _quarantine_key(job_id: str) -> str:
    return f"{QUARANTINE}/{folder_name(job_id)}"
