"""Where the windows' predictions are summed up: in the computer's memory, or in the device's."""

from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from kerasseg.datasets.case import Box


class Accumulator(Protocol):
    """A weighted sum over a box of a volume.

    Made from `total` (d, h, w, K) float32, zeros that become the sum, and the weights of a window,
    (a, b, c) float32.
    """

    def __init__(self, total: np.ndarray, weights: np.ndarray) -> None: ...

    def add(self, place: Box, values: Any) -> None:
        """Add a window's values (a, b, c, K) times the weights at a place of the box."""
        ...

    def finish(self) -> None:
        """The sum is in `total` now, at the latest."""
        ...


class HostAccumulator:
    """Sums into `total` itself, plane by plane: it takes no memory besides, and is fastest."""

    def __init__(self, total: np.ndarray, weights: np.ndarray) -> None:
        self._total = total
        self._weights = weights

    def add(self, place: Box, values: Any) -> None:
        """Add values times weights at a place."""
        part = self._total[place]
        for index, plane in enumerate(np.asarray(values)):
            part[index] += plane * self._weights[index, ..., np.newaxis]

    def finish(self) -> None:
        """Nothing is left to do."""


class DeviceAccumulator:
    """Sums in the memory of the device that TensorFlow computes on, and copies once at the end.

    So predictions that a GPU made do not travel window by window.
    """

    def __init__(self, total: np.ndarray, weights: np.ndarray) -> None:
        self._result = total
        self._total = tf.Variable(tf.zeros(total.shape), trainable=False)
        self._weights = tf.constant(weights[..., np.newaxis])

    def add(self, place: Box, values: Any) -> None:
        """Add values times weights at a place."""
        part = self._total[place]
        part.assign(part + tf.cast(values, tf.float32) * self._weights)

    def finish(self) -> None:
        """Copy the sum to the host."""
        self._result[...] = self._total.numpy()


def choose_accumulator(voxels: int, channels: int, limit: float, gpus: int) -> type[Accumulator]:
    """The device's memory where there is a GPU and float32 sums of that size are within `limit` GiB
    (`evaluation.device_memory`), else the computer's."""
    gibibytes = voxels * channels * 4 / 2**30
    return DeviceAccumulator if gpus and gibibytes <= limit else HostAccumulator
