"""A volume of any size through a network of windows of one size.

The windows are laid over the volume, or over the smallest box around the brain (`WindowGrid`), and
their predictions are averaged with weights (`window_weights`) by an accumulator, which keeps the
sum in the computer's memory or in that of the GPU. `sliding_window` ties these together.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
import tensorflow as tf

from kerasseg.datasets.case import Box
from kerasseg.progress import report
from kerasseg.records.normalise import brain_mask

Start = tuple[int, int, int]
Weighting = Literal["gaussian", "constant"]

_GAUSSIAN_SIGMA: Final = 1 / 8
"""Standard deviation as a fraction of the window (Isensee et al. 2021, nnU-Net)."""
_SMALLEST_WEIGHT: Final = 1e-3
"""Relative to the centre; keeps corners that only one window reaches from dividing by ~0."""


def window_starts(slack: Any, size: int, overlap: float, library: Any, arange: Any) -> Any:
    """Return the first voxels of the windows along one axis, spread evenly from edge to edge.

    Returns whole numbers (n,) from 0 to `slack`, as float64.

    Args:
        slack: the number of voxels by which the axis is longer than the window, 0 or more.
        size: the length of the window in voxels.
        overlap: the fraction of a window by which neighbours overlap at least.
        library: `numpy`, or `tensorflow` in the graph of an exported model.
        arange: the function of that library which counts from 0.
    """
    step = max(int(size * (1 - overlap)), 1)
    gaps = -(-slack // step)
    return library.round(arange(gaps + 1) * slack / library.maximum(gaps, 1))


@dataclass(frozen=True)
class WindowGrid:
    """Windows over a box of a volume, spread evenly along each axis from edge to edge.

    Along an axis where the box is smaller than the window there is a single window, which extends
    beyond the box evenly on both sides.

    Attributes:
        box: the part of the volume that the windows cover.
        window: the size (d, h, w) of a window in voxels.
        overlap: the fraction of a window by which neighbours overlap at least.
    """

    box: Box
    window: tuple[int, int, int]
    overlap: float

    @cached_property
    def axes(self) -> tuple[tuple[int, ...], ...]:
        """First voxels of the windows along each axis of the volume; negative outside of it."""
        axes = []
        for part, size in zip(self.box, self.window, strict=True):
            slack = part.stop - part.start - size
            places = window_starts(max(slack, 0), size, self.overlap, np, np.arange)
            first = part.start - max(-slack, 0) // 2
            axes.append(tuple(first + int(place) for place in places))
        return tuple(axes)

    def starts(self) -> Iterator[Start]:
        """Yield the first voxel of each window."""
        yield from itertools.product(*self.axes)

    def starts_over(self, box: Box) -> Iterator[Start]:
        """Yield the first voxel of each window that has voxels in `box`, a part of the volume."""
        axes = [
            [s for s in starts if s < part.stop and s + size > part.start]
            for starts, part, size in zip(self.axes, box, self.window, strict=True)
        ]
        yield from itertools.product(*axes)

    def tiles(self) -> Iterator[Box]:
        """Yield the box in pieces that do not overlap and are no larger than a window."""
        pieces = (
            [slice(i, min(i + size, part.stop)) for i in range(part.start, part.stop, size)]
            for part, size in zip(self.box, self.window, strict=True)
        )
        yield from itertools.product(*pieces)


def intersection(start: Sequence[int], size: Sequence[int], box: Box) -> tuple[Box, Box]:
    """Return the voxels that a window shares with `box`: within the window, and within the box."""
    in_window, in_box = [], []
    for first, length, part in zip(start, size, box, strict=True):
        low, high = max(first, part.start), min(first + length, part.stop)
        in_window.append(slice(low - first, high - first))
        in_box.append(slice(low - part.start, high - part.start))
    return (in_window[0], in_window[1], in_window[2]), (in_box[0], in_box[1], in_box[2])


def window_weights(window: Sequence[int], weighting: Weighting) -> np.ndarray:
    """Return the weight of each voxel of a window in the mean, (d, h, w) float32, at most 1."""
    if weighting == "constant":
        return np.ones(window, np.float32)
    axes = []
    for size in window:
        offset = np.arange(size) - (size - 1) / 2
        axes.append(np.exp(-0.5 * (offset / (size * _GAUSSIAN_SIGMA)) ** 2))
    weights = axes[0][:, None, None] * axes[1][None, :, None] * axes[2][None, None, :]
    return np.maximum(weights / weights.max(), _SMALLEST_WEIGHT).astype(np.float32)


def clear_air(probabilities: np.ndarray, volume: np.ndarray, background: Sequence[float]) -> None:
    """Make voxels background, in place, that are 0 in every channel of a volume (D, H, W, C).

    Args:
        probabilities: (D, H, W, K).
        volume: The image, in which air is 0.
        background: The K probabilities of air.
    """
    for found, plane in zip(probabilities, volume, strict=True):
        signal = plane[..., 0] != 0
        for channel in range(1, plane.shape[-1]):
            signal |= plane[..., channel] != 0
        found[~signal] = background


class HostAccumulator:
    """A weighted sum of windows over a box of a volume, in the computer's memory.

    Args:
        total: zeros (d, h, w, K) float32, which become the sum.
        weights: the weights (a, b, c) float32 of a window.
    """

    def __init__(self, total: np.ndarray, weights: np.ndarray) -> None:
        self._total = total
        self._weights = weights

    def add(self, place: Box, values: Any) -> None:
        """Add a window's values (a, b, c, K) times the weights at a place of the box."""
        part = self._total[place]
        # Plane by plane: the products fit into the processor's cache.
        for index, plane in enumerate(np.asarray(values)):
            part[index] += plane * self._weights[index, ..., np.newaxis]

    def finish(self) -> None:
        """Write the sum into `total`, where it is already."""


class DeviceAccumulator:
    """The same sum in the GPU's memory, so that predictions do not travel window by window."""

    def __init__(self, total: np.ndarray, weights: np.ndarray) -> None:
        self._result = total
        self._total = tf.Variable(tf.zeros(total.shape), trainable=False)
        self._weights = tf.constant(weights[..., np.newaxis])

    def add(self, place: Box, values: Any) -> None:
        """Add a window's values (a, b, c, K) times the weights at a place of the box."""
        part = self._total[place]
        part.assign(part + tf.cast(values, tf.float32) * self._weights)

    def finish(self) -> None:
        """Copy the sum into `total`."""
        self._result[...] = self._total.numpy()


Accumulator = type[HostAccumulator] | type[DeviceAccumulator]


def choose_accumulator(voxels: int, channels: int, limit: float, gpus: int) -> Accumulator:
    """Return the GPU's accumulator if there is a GPU and the sum takes at most `limit` GiB."""
    gibibytes = voxels * channels * 4 / 2**30
    return DeviceAccumulator if gpus and gibibytes <= limit else HostAccumulator


def sliding_window(
    predict: Callable[[np.ndarray], Any],
    volume: np.ndarray,
    window: tuple[int, int, int],
    background: Sequence[float],
    *,
    overlap: float = 0.5,
    weighting: Weighting = "gaussian",
    batch: int = 1,
    context: int = 0,
    brain_box: bool = False,
    prompted: bool = False,
    accumulator: Accumulator = HostAccumulator,
) -> np.ndarray:
    """Return the weighted mean of the predictions of overlapping windows.

    Outside the volume there are zeros (air), so it may be smaller than the window. Besides the
    volume and the result this takes the memory of a few windows, whatever the volume's size.
    Returns the mean (D, H, W, K) float32.

    Args:
        predict: maps windows (B, d + 2 context, h, w, C) float32 to (B, d, h, w, K). The last batch
            may be smaller than the others.
        volume: the image (D, H, W, C).
        window: the size (d, h, w) of a window in voxels.
        background: the K probabilities of air. A window that is 0 throughout gets them without a
            call of `predict`.
        overlap: the fraction of a window by which neighbours overlap at least.
        weighting: how much each voxel of a window counts, see `window_weights`.
        batch: the number of windows in a call of `predict`.
        context: the number of planes that `predict` sees beyond both ends of a window's first axis.
        brain_box: whether the windows cover only the smallest box around all voxels that are not 0.
            Everything outside of it is `background`.
        prompted: whether the last channel is the mask of which prompts are made. A window without
            any gets `background` without a call of `predict`, too.
        accumulator: where the sum is kept.
    """
    result = np.zeros((*volume.shape[:3], len(background)), np.float32)
    box = brain_mask(volume)[0] if brain_box else _whole(volume)
    if brain_box:
        _fill_outside(result, box, background)
    if box[0].stop == box[0].start:
        return result
    grid = WindowGrid(box, window, overlap)
    # All windows share the same part with the box: along an axis where the box is smaller than the
    # window there is only one.
    inside, _ = intersection(next(grid.starts()), window, box)
    weights = window_weights(window, weighting)[inside]
    air = np.broadcast_to(np.asarray(background, np.float32), (*weights.shape, len(background)))
    sums = accumulator(result[box], weights)

    pending: list[tuple[Start, np.ndarray]] = []

    def flush() -> None:
        if pending:
            windows = [values[np.newaxis] for _, values in pending]
            predictions = predict(np.concatenate(windows) if len(windows) > 1 else windows[0])
            for (start, _), values in zip(pending, predictions, strict=True):
                sums.add(intersection(start, window, box)[1], values[inside])
            pending.clear()

    windows = math.prod(map(len, grid.axes))
    for done, start in enumerate(grid.starts()):
        report(done, windows)
        source = _read(volume, start, window, context)
        if source[..., -1:].any() if prompted else source.any():
            pending.append((start, source))
            if len(pending) == batch:
                flush()
        elif any(background):
            sums.add(intersection(start, window, box)[1], air)
    flush()
    sums.finish()
    _divide(result, grid, weights)
    return result


def _whole(volume: np.ndarray) -> Box:
    depth, height, width = volume.shape[:3]
    return slice(0, depth), slice(0, height), slice(0, width)


def _fill_outside(result: np.ndarray, box: Box, background: Sequence[float]) -> None:
    for channel, value in enumerate(background):
        if value:
            result[..., channel] = value
            result[(*box, channel)] = 0


def _read(volume: np.ndarray, start: Start, size: Start, context: int) -> np.ndarray:
    """Return a window with its context, (d + 2 context, h, w, C) float32."""
    first = (start[0] - context, *start[1:])
    length = (size[0] + 2 * context, *size[1:])
    inside, place = intersection(first, length, _whole(volume))
    if all(part.stop - part.start == n for part, n in zip(inside, length, strict=True)):
        return np.asarray(volume[place], np.float32)
    window = np.zeros((*length, volume.shape[3]), np.float32)
    window[inside] = volume[place]
    return window


def _divide(result: np.ndarray, grid: WindowGrid, weights: np.ndarray) -> None:
    """Divide the sum by the total weight of each voxel, tile by tile to save memory.

    `weights` (a, b, c) belong to the part of a window that lies in the box.
    """
    for tile in grid.tiles():
        norm = np.zeros([part.stop - part.start for part in tile], np.float32)
        for start in grid.starts_over(tile):
            first = [max(s, part.start) for s, part in zip(start, grid.box, strict=True)]
            inside, place = intersection(first, weights.shape, tile)
            norm[place] += weights[inside]
        for channel in range(result.shape[-1]):
            result[(*tile, channel)] /= norm
