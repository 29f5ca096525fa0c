"""The API of a running `musiclab up`: upload, status, download, cleanup."""

import io
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile

from orchestrator.audio.ffmpeg import find_ffmpeg
from tests.support.service import Service, torchserve_processes
from tests.support.signals import (
    RATE,
    SEGMENT,
    aligned_si_sdr,
    band_limited,
    decoded,
    encoded,
    noise,
)
from tests.support.songs import cut, songs

WAV1, WAV2 = (encoded(noise(20 * RATE, seed)) for seed in (1, 2))
SOUND = {"track1": ("a.wav", WAV1), "track2": ("b.wav", WAV2)}
STARTER_BAND_HZ = 4800
CODECS = {
    ".mp3": ["-c:a", "libmp3lame", "-q:a", "2"],
    ".m4a": ["-c:a", "aac", "-b:a", "192k"],
    ".wav": ["-c:a", "pcm_s16le"],
    ".flac": ["-c:a", "flac"],
    ".ogg": ["-c:a", "libvorbis", "-q:a", "6"],
}


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """170 seconds of a song in each format: stereo, 44.1 kHz."""
    directory = tmp_path_factory.mktemp("formats")
    made = {}
    for number, (extension, codec) in enumerate(CODECS.items()):
        song, path = songs()[number % 3], directory / f"song{extension}"
        source = ["-t", "170", "-i", str(song), "-ac", "2", "-ar", "44100", *codec]
        subprocess.run([find_ffmpeg(), "-v", "error", *source, path], check=True)
        made[extension] = path
    return made


def file_of(path: Path) -> tuple[str, bytes]:
    return path.name, path.read_bytes()


@pytest.mark.parametrize(
    ("first", "second", "start1", "start2"),
    [
        (".mp3", ".m4a", 95.5, 61.25),
        (".wav", ".flac", 70.0, 130.125),
        (".ogg", ".mp3", 33.3, 140.0),
    ],
)
def test_songs_of_every_format_are_blended(
    service: Service,
    formats: dict[str, Path],
    first: str,
    second: str,
    start1: float,
    start2: float,
) -> None:
    path1, path2 = formats[first], formats[second]
    accepted = service.generate(
        {"track1": file_of(path1), "track2": file_of(path2)},
        start_time_1=str(start1),
        start_time_2=str(start2),
    )
    assert accepted.status_code == 202, accepted.text
    job_id = accepted.json()["job_id"]
    assert accepted.json() == {
        "job_id": job_id,
        "status": "queued",
        "message": "Generation started",
    }
    assert accepted.headers["Location"] == f"/api/status/{job_id}"

    status = service.finished(job_id)
    assert status["status"] == "completed", status
    assert (status["progress"], status["message"]) == (100, "Music generation complete!")
    service.assert_only_music_left(job_id)

    download = service.call("GET", f"/api/download/{job_id}")
    assert download.headers["Content-Type"] == "audio/wav"
    assert 'filename="generated_music.wav"' in download.headers["Content-Disposition"]
    info = soundfile.info(io.BytesIO(download.content))
    assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
    assert info.frames == SEGMENT
    blend = band_limited(cut(path1, start1) + cut(path2, start2), STARTER_BAND_HZ)
    assert aligned_si_sdr(blend, decoded(download.content), within=0.025) >= 30

    assert service.call("DELETE", f"/api/cleanup/{job_id}").json() == {
        "message": "Job cleaned up successfully"
    }
    assert f"music_{job_id}" not in service.cached_jobs()
    assert service.call("GET", f"/api/status/{job_id}").status_code == 404


def test_a_range_of_the_music_can_be_downloaded(service: Service) -> None:
    job_id = service.generate(SOUND, start_time="0.0", end_time="16.0").json()["job_id"]
    assert service.finished(job_id)["status"] == "completed"
    path = f"/api/download/{job_id}"
    whole = service.call("GET", path)
    part = service.call("GET", path, headers={"Range": "bytes=100-199"})
    assert part.status_code == 206
    assert part.content == whole.content[100:200]
    unchanged = service.call("GET", path, headers={"If-None-Match": whole.headers["ETag"]})
    assert unchanged.status_code == 304
    service.call("DELETE", f"/api/cleanup/{job_id}")


def test_a_short_track_is_padded_with_silence(service: Service) -> None:
    short = encoded(noise(RATE // 5, 7))
    silent = encoded(np.zeros(RATE))
    job_id = service.generate(
        {"track1": ("short.wav", short), "track2": ("silent.wav", silent)}
    ).json()["job_id"]
    assert service.finished(job_id)["status"] == "completed"
    music = decoded(service.call("GET", f"/api/download/{job_id}").content)
    assert len(music) == SEGMENT
    assert np.abs(music[: RATE // 4]).max() > 0.05
    assert np.abs(music[RATE // 2 :]).max() < 0.01
    service.call("DELETE", f"/api/cleanup/{job_id}")


def test_a_running_job_can_be_deleted(service: Service) -> None:
    job_id = service.generate(SOUND).json()["job_id"]
    deadline = time.monotonic() + 60
    while service.call("GET", f"/api/status/{job_id}").json()["progress"] < 50:
        assert time.monotonic() < deadline, "the job did not start within 60 s"
        time.sleep(0.05)
    assert service.call("DELETE", f"/api/cleanup/{job_id}").status_code == 200
    assert service.call("GET", f"/api/status/{job_id}").status_code == 404
    assert f"music_{job_id}" not in service.cached_jobs()
    time.sleep(3)  # the response of the model arrives, and must not recreate any file
    assert f"music_{job_id}" not in service.cached_jobs()


def video_without_sound(directory: Path) -> bytes:
    path = directory / "video.m4a"
    picture = ["-f", "lavfi", "-i", "color=s=64x64:d=1", "-c:v", "mpeg4", "-f", "mp4"]
    subprocess.run([find_ffmpeg(), "-v", "error", *picture, path], check=True)
    return path.read_bytes()


def cut_m4a(directory: Path) -> bytes:
    path = directory / "cut.m4a"
    tone = ["-f", "lavfi", "-i", "sine=d=5", "-c:a", "aac"]
    subprocess.run([find_ffmpeg(), "-v", "error", *tone, path], check=True)
    return path.read_bytes()[: path.stat().st_size // 2]  # the index is at the end


@pytest.mark.parametrize(
    ("track2", "code", "named"),
    [
        (None, "missing_field", "track2"),
        ((None, "some text"), "not_a_file", "track2"),
        (("b.txt", WAV2), "unsupported_format", ".mp3, .m4a, .wav, .flac, .ogg"),
        (("b.mp3.exe", WAV2), "unsupported_format", "b.mp3.exe"),
        (("noextension", WAV2), "unsupported_format", "noextension"),
        (("b.mp3", b"this is a text, not music\n" * 100), "not_audio", "track2"),
        (("b.mp3", b""), "empty_file", "track2"),
        (("b.m4a", cut_m4a), "not_audio", "track2"),
        (("b.m4a", video_without_sound), "not_audio", "track2"),
        (("b.wav", bytes(50 * 2**20 + 1)), "file_too_large", "track2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_invalid_track_is_rejected(
    service: Service, tmp_path: Path, track2: Any, code: str, named: str
) -> None:
    before = service.cached_jobs()
    files: dict[str, Any] = {"track1": SOUND["track1"]}
    if track2 is not None:
        name, content = track2
        files["track2"] = (name, content(tmp_path) if callable(content) else content)
    rejected = service.generate(files)
    assert rejected.status_code == 400, rejected.text
    assert rejected.json()["code"] == code
    assert named in rejected.json()["detail"]
    assert service.cached_jobs() == before


@pytest.mark.parametrize(
    ("times", "code", "named"),
    [
        ({"start_time": "abc"}, "invalid_time", "start_time is 'abc'"),
        ({"start_time_1": "NaN"}, "invalid_time", "start_time_1"),
        ({"end_time": "-3"}, "invalid_time", "end_time"),
        ({"start_time_2": "9", "end_time_2": "8"}, "invalid_window", "end_time_2"),
        ({"start_time_3": "9"}, "unknown_field", "start_time_3"),
    ],
)
def test_invalid_times_are_rejected(
    service: Service, times: dict[str, str], code: str, named: str
) -> None:
    before = service.cached_jobs()
    rejected = service.generate(SOUND, **times)
    assert rejected.status_code == 400, rejected.text
    assert rejected.json()["code"] == code
    assert named in rejected.json()["detail"]
    assert service.cached_jobs() == before


def test_a_start_past_the_end_fails_the_job_with_the_actual_length(service: Service) -> None:
    job_id = service.generate(SOUND, start_time_2="20.5").json()["job_id"]
    status = service.finished(job_id)
    assert (status["status"], status["error_code"]) == ("failed", "window_past_end")
    assert "track2" in status["message"]
    assert "20" in status["message"]
    assert f"music_{job_id}" not in service.cached_jobs()
    rejected = service.call("GET", f"/api/download/{job_id}")
    assert (rejected.status_code, rejected.json()["code"]) == (400, "not_ready")
    assert service.call("DELETE", f"/api/cleanup/{job_id}").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/status/unknown", 404, "job_not_found"),
        ("GET", "/api/download/unknown", 404, "job_not_found"),
        ("DELETE", "/api/cleanup/unknown", 404, "job_not_found"),
        ("GET", "/api/nothing", 404, "not_found"),
        ("GET", "/docs/../cli.py", 404, "not_found"),
        ("GET", "/api/generate", 405, "method_not_allowed"),
        ("PUT", "/health", 405, "method_not_allowed"),
    ],
)
def test_unknown_paths_and_jobs_return_json_errors(
    service: Service, method: str, path: str, status: int, code: str
) -> None:
    rejected = service.call(method, path, headers={"Origin": "http://localhost:3000"})
    assert rejected.status_code == status
    assert rejected.json()["code"] == code
    assert rejected.json()["detail"]
    assert rejected.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
    if status == 405:
        assert rejected.headers["Allow"]


def test_a_body_that_is_too_large_is_rejected_before_it_is_read(service: Service) -> None:
    class DeclaredBody:
        """A body with a declared length, of which no byte is sent before the response."""

        def __len__(self) -> int:
            return 102 * 2**20

        def read(self, size: int = -1) -> bytes:
            return b""

    rejected = service.call(
        "POST",
        "/api/generate",
        data=DeclaredBody(),
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    assert (rejected.status_code, rejected.json()["code"]) == (413, "request_too_large")


def test_only_the_frontends_origin_is_allowed(service: Service) -> None:
    for origin, allowed in (("http://localhost:3000", True), ("http://evil.example", False)):
        preflight = service.call(
            "OPTIONS",
            "/api/cleanup/x",
            headers={"Origin": origin, "Access-Control-Request-Method": "DELETE"},
        )
        response = service.call("GET", "/health", headers={"Origin": origin})
        for each in (preflight, response):
            assert ("Access-Control-Allow-Origin" in each.headers) is allowed
        assert ("Access-Control-Allow-Methods" in preflight.headers) is allowed


def test_health_describes_the_loaded_model(service: Service) -> None:
    health = service.call("GET", "/health").json()
    assert health["status"] == "healthy"
    assert health["model_loaded"] is health["encodec_loaded"] is True
    assert (health["device"], health["codec"], health["checkpoint"]) == (
        "cpu",
        "starter",
        "starter",
    )


def test_the_contract_is_served_and_browsable(service: Service) -> None:
    contract = service.call("GET", "/openapi.json").json()
    assert "/api/generate" in contract["paths"]
    page = service.call("GET", "/docs")
    assert page.url.endswith("/docs/index.html")
    assert "swagger-ui-bundle.js" in page.text
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "swagger-initializer.js"):
        assert service.call("GET", f"/docs/{asset}").status_code == 200
    assert "/openapi.json" in service.call("GET", "/docs/swagger-initializer.js").text


def test_large_uploads_are_not_held_in_memory(service: Service) -> None:
    (api,) = [
        process
        for process in psutil.process_iter(["cmdline"])
        if "musiclab" in " ".join(process.info["cmdline"] or [])
        and process.pid == torchserve_processes(service.settings)[0].ppid()
    ]
    seconds = (50 * 2**20 - 100) // (2 * RATE)
    large = encoded(np.zeros(seconds * RATE))
    service.generate(SOUND)  # loads what the first job needs
    before = api.memory_info().rss
    job_id = service.generate({"track1": ("a.wav", large), "track2": ("b.wav", large)}).json()[
        "job_id"
    ]
    grown = api.memory_info().rss - before
    assert grown < 20 * 2**20
    service.call("DELETE", f"/api/cleanup/{job_id}")
