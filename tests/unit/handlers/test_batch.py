"""A batch contains the valid requests in order; the others are rejected by index."""

import numpy as np
import torch

from handlers.batch import build_batch
from handlers.job_request import read_job
from tests.support.signals import SEGMENT, encoded, noise

FIRST, SECOND = (
    {"track1": encoded(noise(SEGMENT, seed)), "track2": encoded(noise(n, seed))}
    for seed, n in enumerate((5000, 99))
)


def test_valid_requests_are_stacked_and_the_others_rejected() -> None:
    batch = build_batch([FIRST, {"track1": FIRST["track1"]}, SECOND, {"colour": b"blue"}])
    assert batch.indices == (0, 2)
    assert batch.tracks is not None
    assert batch.tracks.shape == (2, 2, 1, SEGMENT)
    assert batch.tracks.dtype == torch.float32
    for position, request in enumerate((FIRST, SECOND)):
        assert np.array_equal(batch.tracks[:, position].numpy(), read_job(request))
    errors = {index: error.code for index, error in batch.errors.items()}
    assert errors == {1: "missing_field", 3: "unknown_field"}


def test_a_batch_without_a_valid_request_has_no_tracks() -> None:
    batch = build_batch([{}])
    assert (batch.indices, batch.tracks) == ((), None)
    assert list(batch.errors) == [0]
