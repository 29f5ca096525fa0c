"""Measures the response time of requests whose result already exists.

    python -m benchmarks.repeated_request

Starts `musiclab up`, submits two four-minute tracks, waits for the music, and repeats the request
20 times. Prints the time from sending a repeated request to its response, and verifies that its job
is completed by then.
"""

import statistics
import tempfile
import time
from pathlib import Path

from tests.support.service import Service, running
from tests.support.settings import settings_in
from tests.support.tracks import make_track, varying_noise

SECONDS = 240
REPEATED = 20


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sound = varying_noise(SECONDS)
        kinds = ("cbr.mp3", "edit_list.m4a")
        tracks = [make_track(folder, kind, sound).read_bytes() for kind in kinds]
        files = {"track1": (kinds[0], tracks[0]), "track2": (kinds[1], tracks[1])}
        settings = settings_in(folder).model_copy(update={"rate_limit": 0})
        with running(settings, "up"):
            service = Service(settings)
            first = service.finished(service.generate(files).json()["job_id"])
            assert first["status"] == "completed", first
            took = []
            for _ in range(REPEATED):
                began = time.perf_counter()
                response = service.generate(files)
                took.append(time.perf_counter() - began)
                job_id = response.json()["job_id"]
                status = service.call("GET", f"/api/status/{job_id}").json()
                assert status["status"] == "completed", status
        sizes = " and ".join(f"{len(track) / 1e6:.1f} MB" for track in tracks)
        print(f"{REPEATED} repeated requests of {sizes}, upload included:")
        print(
            f"median {1000 * statistics.median(took):.0f} ms, longest {1000 * max(took):.0f} ms; "
            "every job was completed when the response arrived"
        )


if __name__ == "__main__":
    main()
