"""Forms a batch for the pipeline from the requests that the server hands over together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from handlers.errors import InvalidRequestError
from handlers.job_request import read_job


@dataclass(frozen=True)
class Batch:
    """The requests that can be answered, in one tensor, and those that cannot.

    Attributes:
        indices: of the N valid requests, among all.
        tracks: [2, N, 1, 384000] float32 at 24 kHz; None where no request is valid.
        refused: the errors of the others, by index.
    """

    indices: tuple[int, ...]
    tracks: Tensor | None
    refused: Mapping[int, InvalidRequestError]


def form_batch(requests: Sequence[Mapping[str, Any]]) -> Batch:
    """The batch of some requests, given their form fields.

    A request that is at fault is left out, so that the others are answered.
    """
    jobs: dict[int, Tensor] = {}
    refused: dict[int, InvalidRequestError] = {}
    for index, fields in enumerate(requests):
        try:
            jobs[index] = torch.from_numpy(read_job(fields))
        except InvalidRequestError as error:
            refused[index] = error
    tracks = torch.stack(list(jobs.values()), dim=1) if jobs else None
    return Batch(tuple(jobs), tracks, refused)
