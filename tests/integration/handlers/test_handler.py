"""Two tracks in, one WAV out, through a real TorchServe."""

import io
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from orchestrator.serving.process import TorchServe
from tests.support.model_client import Fields, ModelClient
from tests.support.signals import (
    RATE,
    SEGMENT,
    Samples,
    aligned_si_sdr,
    band_limited,
    decoded,
    encoded,
    noise,
    tones,
)
from tests.support.songs import cut, songs


def music(seed: int) -> Samples:
    """Sixteen seconds, different for each seed."""
    return noise(SEGMENT, seed) + tones(SEGMENT, 110.0 * seed, 700.0 + 30 * seed)


TRACK1, TRACK2 = encoded(music(1)), encoded(music(2))
STAGES = ("request_decode", "encode", "cascade", "decode")
STARTER_BAND_HZ = 4800
SETTLED_WITHIN_S = 30


def test_the_response_is_a_wav_of_sixteen_seconds(client: ModelClient) -> None:
    response = client.predict({"track1": TRACK1, "track2": TRACK2})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "audio/wav"
    info = soundfile.info(io.BytesIO(response.content))
    assert (info.samplerate, info.channels, info.subtype) == (24_000, 1, "PCM_16")
    assert info.frames == SEGMENT


@pytest.mark.parametrize(
    "tracks",
    [
        pytest.param((0, 1, 60.0, 45.0), id="first and second"),
        pytest.param((1, 2, 20.5, 90.25), id="second and third"),
        pytest.param((2, 0, 120.0, 0.0), id="third and first"),
    ],
)
def test_starter_weights_blend_two_real_songs(
    client: ModelClient, tracks: tuple[int, int, float, float]
) -> None:
    first, second, start1, start2 = tracks
    windows = [cut(songs()[first], start1), cut(songs()[second], start2)]
    files = [encoded(window) for window in windows]
    response = client.predict({"track1": files[0], "track2": files[1]})
    assert response.status_code == 200, response.text
    blend = band_limited(windows[0] + windows[1], STARTER_BAND_HZ)
    assert aligned_si_sdr(blend, decoded(response.content), within=0.025) >= 30


def test_start_times_choose_the_window(client: ModelClient) -> None:
    # Integer samples, because FLAC and WAV round fractions differently.
    long1, long2 = (
        (32767 * noise(seconds * RATE, seed)).astype(np.int16)
        for seed, seconds in ((3, 20), (4, 19))
    )
    whole = client.predict(
        {
            "track1": encoded(long1, "FLAC"),
            "track2": encoded(long2),
            "start_time_1": "4",
            "start_time_2": "2.5",
        }
    )
    windows = client.predict({"track1": encoded(long1[96_000:]), "track2": encoded(long2[60_000:])})
    assert whole.status_code == windows.status_code == 200
    assert np.array_equal(decoded(whole.content), decoded(windows.content))


def test_four_requests_share_a_batch_and_only_the_invalid_one_fails(client: ModelClient) -> None:
    requests: list[Fields] = [
        {"track1": TRACK1, "track2": TRACK2},
        {"track1": TRACK2, "track2": encoded(music(5))},
        {"track1": b"this is no audio", "track2": TRACK2},
        {"track1": encoded(music(6)), "track2": TRACK1},
    ]
    alone = [client.predict(fields) for fields in requests]
    batches, items = (client.metric(f"musiclab_batch_size_{part}") for part in ("count", "sum"))

    # One request keeps the worker busy for at least half a second, so that the four others queue.
    with ThreadPoolExecutor(5) as pool:
        busy = pool.submit(client.predict, requests[0])
        _wait_until_taken(client, batches)
        responses = list(pool.map(client.predict, requests))
        assert busy.result().status_code == 200

    assert [response.status_code for response in responses] == [200, 200, 400, 200]
    assert responses[2].json()["code"] == "not_audio"
    assert client.metric("musiclab_batch_size_count") == batches + 2
    assert client.metric("musiclab_batch_size_sum") == items + 1 + 4
    for together, single in zip(responses, alone, strict=True):
        if together.status_code == 200:
            difference = decoded(together.content) - decoded(single.content)
            assert np.abs(difference).max() <= 1 / 32768  # rounding to PCM_16 may differ


def _wait_until_taken(client: ModelClient, batches: float) -> None:
    deadline = time.monotonic() + 30
    while client.metric("musiclab_batch_size_count") == batches:
        assert time.monotonic() < deadline, "the worker took no request within 30 s"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("fields", "code", "named"),
    [
        ({}, "missing_field", "track1"),
        ({"track1": TRACK1}, "missing_field", "track2"),
        ({"track1": TRACK1, "track2": "some text"}, "not_audio", "track2"),
        ({"track1": b"", "track2": TRACK2}, "empty_file", "track1"),
        ({"track1": TRACK1[:100_000], "track2": TRACK2}, "truncated_file", "track1"),
        (
            {"track1": TRACK1, "track2": encoded(np.full(9, np.nan), subtype="FLOAT")},
            "not_finite",
            "track2",
        ),
        (
            {"track1": encoded(music(1), rate=44_100), "track2": TRACK2},
            "wrong_sample_rate",
            "44100",
        ),
        ({"track1": TRACK1, "track2": encoded(np.zeros(0))}, "empty_audio", "track2"),
        (
            {"track1": TRACK1, "track2": TRACK2, "start_time_1": "16"},
            "window_past_end",
            "start_time_1",
        ),
        ({"track1": TRACK1, "track2": TRACK2, "start_time_2": "soon"}, "invalid_time", "soon"),
        ({"track1": TRACK1, "track2": TRACK2, "start": "1"}, "unknown_field", "start"),
    ],
)
def test_an_invalid_request_is_rejected_with_an_explanation(
    client: ModelClient, fields: Fields, code: str, named: str
) -> None:
    response = client.predict(fields)
    assert response.status_code == 400, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.json()["code"] == code
    assert named in response.json()["detail"]


def settled_counts(
    client: ModelClient, names: list[str], labels: dict[str, str]
) -> dict[str, float]:
    """Returns the counts of histograms once they are stable: TorchServe may update them late."""
    deadline = time.monotonic() + SETTLED_WITHIN_S
    last: dict[str, float] = {}
    while True:
        counts = {name: client.metric(f"{name}_count", **labels) for name in names}
        if counts == last:
            return counts
        assert time.monotonic() < deadline, f"the counts of {names} do not settle"
        last = counts
        time.sleep(1)


def test_metrics_report_durations_batches_device_and_version(client: ModelClient) -> None:
    labels = {"model_version": "starter", "device": "cpu"}
    names = [f"musiclab_{stage}_seconds" for stage in STAGES] + ["musiclab_batch_size"]
    before = settled_counts(client, names, labels)
    response = client.predict({"track1": TRACK1, "track2": TRACK2})
    assert response.status_code == 200, response.text
    counts = settled_counts(client, names, labels)
    assert counts == {name: count + 1 for name, count in before.items()}
    assert (
        client.metric("musiclab_model_info", codec="starter", checkpoint="starter", **labels) == 1
    )


def test_the_log_names_the_device(client: ModelClient, model_server: TorchServe) -> None:
    log = (model_server.folder / "logs" / "model_log.log").read_text()
    assert "musiclab starter is ready on cpu (" in log


def test_a_request_without_the_key_is_rejected(client: ModelClient) -> None:
    without_key = replace(client, authorized=False)
    assert without_key.predict({"track1": TRACK1, "track2": TRACK2}).status_code == 400


def test_archives_from_urls_are_rejected(client: ModelClient) -> None:
    for address in ("http://127.0.0.1:9/evil.mar", "file:///tmp/evil.mar"):
        response = client.manage("POST", "/models", url=address)
        assert response.status_code == 404, response.text
        assert "allowed URL" in response.text
