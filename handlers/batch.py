"""Builds the pipeline's input batch from the requests that TorchServe batches together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from handlers.errors import InvalidRequestError
from handlers.job_request import read_job


@dataclass(frozen=True)
class Batch:
    """The valid requests as one tensor, and the errors of the invalid ones.

    Attributes:
        indices: positions of the N valid requests among all requests.
        tracks: [2, N, 1, 384000] float32 at 24 kHz; None if no request is valid.
        errors: error of each invalid request, by its position.
    """

    indices: tuple[int, ...]
    tracks: Tensor | None
    errors: Mapping[int, InvalidRequestError]


def build_batch(requests: Sequence[Mapping[str, Any]]) -> Batch:
    """Build a batch from the form fields of each request.

    Invalid requests are left out, so that they do not affect the others.
    """
    jobs: dict[int, Tensor] = {}
    errors: dict[int, InvalidRequestError] = {}
    for index, fields in enumerate(requests):
        try:
            jobs[index] = torch.from_numpy(read_job(fields))
        except InvalidRequestError as error:
            errors[index] = error
    tracks = torch.stack(list(jobs.values()), dim=1) if jobs else None
    return Batch(tuple(jobs), tracks, errors)
