"""A request of either protocol -> its outputs."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasseg.serving.server.models import Models
from kerasseg.serving.server.work_queue import wait

DEFAULT_SIGNATURE = "serving_default"


@dataclass(frozen=True)
class Request:
    """version: None for the one that answers. until: `time.monotonic` by when it is of use."""

    model: str
    version: int | None
    signature: str
    until: float


def answer(
    models: Models,
    request: Request,
    inputs: Callable[[Any], Mapping[str, np.ndarray]],
    queued: Callable[[Future], Any] = lambda future: None,
) -> tuple[dict[str, np.ndarray], int]:
    """The outputs, and the version that made them.

    inputs: makes the tensors, given the loaded version
    queued: is told the task, so that it can be cancelled

    Raises `Refusal`.
    """
    served = models.model(request.model)
    loaded = served.get(request.version)
    loaded.specs(request.signature)
    tensors = inputs(loaded)
    loaded.check(request.signature, tensors)
    task = served.work.put(lambda: loaded.run(request.signature, tensors))
    queued(task)
    return wait(task, request.until - time.monotonic()), loaded.version
