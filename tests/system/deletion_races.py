"""`python -m tests.system.deletion_races`: deletes a thousand jobs as they are being completed."""

import argparse
import asyncio
import random
import tempfile
from pathlib import Path
from unittest import mock

from orchestrator.api.app_keys import STORAGE, WORKER
from orchestrator.serving import watcher as watcher_module
from orchestrator.settings import Settings
from tests.support.jobs import converted_job, status, unlimited_api
from tests.support.quick_model import MUSIC, Client, app_of
from tests.support.settings import settings_in

CLIENTS = 8
MOMENTS = (0, 30, 50, 95, 100)  # progress in percent
SEED = 4


async def race_deletions(settings: Settings, races: int) -> int:
    """Delete `races` jobs, each at a random moment until its completion.

    Returns:
        The number of jobs that were completed before they were deleted.

    Raises:
        AssertionError: a response was wrong, files were left, or the deletions missed the race.
    """
    rng = random.Random(SEED)  # noqa: S311
    with mock.patch.object(watcher_module, "WATCH_INTERVAL_S", 0.2):
        async with unlimited_api(settings) as client:

            async def client_races() -> list[bool]:
                return [await _race(client, rng) for _ in range(races // CLIENTS)]

            outcomes = await asyncio.gather(*(client_races() for _ in range(CLIENTS)))
            await asyncio.sleep(0.5)
            assert await app_of(client)[STORAGE].job_ids() == set()
    completed = sum(map(sum, outcomes))
    assert races / 20 < completed < races - races / 20, "the deletions miss the race; adapt MOMENTS"
    return completed


async def _race(client: Client, rng: random.Random) -> bool:
    """Delete a job; returns True if it was completed before."""
    job_id = await converted_job(client)
    app_of(client)[WORKER].wake()
    moment = rng.choice(MOMENTS)
    while (await status(client, job_id))["progress"] < moment:
        await asyncio.sleep(0.005)
    await asyncio.sleep(rng.uniform(0, 0.02))
    download = await client.get(f"/api/download/{job_id}")
    assert download.status in (200, 400), await download.text()
    if download.status == 200:
        assert await download.read() == MUSIC
    response = await client.delete(f"/api/cleanup/{job_id}")
    assert response.status == 200, await response.text()
    assert (await client.get(f"/api/status/{job_id}")).status == 404
    return download.status == 200


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.system.deletion_races", description=__doc__
    )
    parser.add_argument("--races", type=int, default=1000, help="a multiple of eight")
    races = parser.parse_args().races
    with tempfile.TemporaryDirectory(prefix="musiclab-races-") as folder:
        completed = asyncio.run(race_deletions(settings_in(Path(folder)), races))
    print(f"{races} jobs deleted, {completed} of them after completion; no files are left")


if __name__ == "__main__":
    main()
