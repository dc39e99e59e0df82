"""An array as a tensor at the price of one copy.

Where the windows' predictions are summed up: in the computer's memory, or in the device's.

The box of a volume outside of which there is nothing to segment.

`WindowGrid`: where the windows of a volume lie.

How much each voxel of a window counts.

A volume of any size through a network of fixed window size.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal, Protocol

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


def find_brain_box(volume: np.ndarray) -> Box:
    """Smallest box around the voxels of (D, H, W, C) that are not 0 in every channel.

    Empty, (0:0, 0:0, 0:0), where all are 0. Goes plane by plane, so that it takes no memory to
    speak of.
    """
    depth, height, width = (np.zeros(n, bool) for n in volume.shape[:3])
    for index, plane in enumerate(volume):
        signal = plane != 0
        rows = signal.any(axis=(1, 2))
        depth[index] = rows.any()
        if depth[index]:
            height |= rows
            width |= signal.any(axis=0).any(axis=-1)
    places = [np.flatnonzero(hits) for hits in (depth, height, width)]
    d, h, w = (slice(int(p[0]), int(p[-1]) + 1) if p.size else slice(0, 0) for p in places)
    return d, h, w


Start = tuple[int, int, int]


@dataclass(frozen=True)
class WindowGrid:
    """Windows (d, h, w) over a box of a volume, spread evenly along each axis from edge to edge.

    Neighbours overlap by at least the fraction `overlap`. Where the box is smaller than the window
    there is one, which stands out evenly on both sides.
    """

    box: Box
    window: tuple[int, int, int]
    overlap: float

    @cached_property
    def axes(self) -> tuple[tuple[int, ...], ...]:
        """First voxels of the windows along each axis, in the volume; negative outside of it."""
        return tuple(
            _starts(part.start, part.stop - part.start, size, self.overlap)
            for part, size in zip(self.box, self.window, strict=True)
        )

    def starts(self) -> Iterator[Start]:
        """First voxel of each window."""
        yield from itertools.product(*self.axes)

    def starts_over(self, box: Box) -> Iterator[Start]:
        """First voxel of each window that has voxels in `box`, which is given in the volume."""
        axes = [
            [s for s in starts if s < part.stop and s + size > part.start]
            for starts, part, size in zip(self.axes, box, self.window, strict=True)
        ]
        yield from itertools.product(*axes)

    def tiles(self) -> Iterator[Box]:
        """The box in pieces no larger than a window, which do not overlap."""
        pieces = (
            [slice(i, min(i + size, part.stop)) for i in range(part.start, part.stop, size)]
            for part, size in zip(self.box, self.window, strict=True)
        )
        yield from itertools.product(*pieces)


def shared_part(start: Sequence[int], size: Sequence[int], box: Box) -> tuple[Box, Box]:
    """What a window has in common with `box`: in places of the window, and of the box."""
    inside, outside = [], []
    for first, length, part in zip(start, size, box, strict=True):
        low, high = max(first, part.start), min(first + length, part.stop)
        inside.append(slice(low - first, high - first))
        outside.append(slice(low - part.start, high - part.start))
    return (inside[0], inside[1], inside[2]), (outside[0], outside[1], outside[2])


def window_step(size: int, overlap: float) -> int:
    """How far apart neighbours may be along an axis, in voxels."""
    return max(int(size * (1 - overlap)), 1)


def _starts(first: int, length: int, size: int, overlap: float) -> tuple[int, ...]:
    slack = length - size
    if slack <= 0:
        return (first - (-slack // 2),)
    step = window_step(size, overlap)
    count = -(-slack // step) + 1
    return tuple(first + round(i * slack / (count - 1)) for i in range(count))


Weighting = Literal["gaussian", "constant"]

_GAUSSIAN_SIGMA: Final = 1 / 8
"""Standard deviation as a fraction of the window (Isensee et al. 2021, nnU-Net)."""
_SMALLEST_WEIGHT: Final = 1e-3
"""Relative to the centre; keeps corners that only one window reaches from dividing by ~0."""


def window_weights(window: Sequence[int], weighting: Weighting) -> np.ndarray:
    """Weight of each voxel of a window in the mean, (d, h, w) float32, 1 at most."""
    if weighting == "constant":
        return np.ones(window, np.float32)
    axes = []
    for size in window:
        offset = np.arange(size) - (size - 1) / 2
        axes.append(np.exp(-0.5 * (offset / (size * _GAUSSIAN_SIGMA)) ** 2))
    weights = axes[0][:, None, None] * axes[1][None, :, None] * axes[2][None, None, :]
    return np.maximum(weights / weights.max(), _SMALLEST_WEIGHT).astype(np.float32)


def sliding_window(
    predict: Callable[[np.ndarray], Any],
    volume: np.ndarray,
    window: Sequence[int],
    background: Sequence[float],
    *,
    overlap: float = 0.5,
    weighting: Weighting = "gaussian",
    batch: int = 1,
    context: int = 0,
    brain_box: bool = False,
    accumulator: Callable[[np.ndarray, np.ndarray], Accumulator] = HostAccumulator,
) -> np.ndarray:
    """Volume (D, H, W, C) -> weighted mean of the windows' predictions (D, H, W, K) float32.

    `predict` maps (B, *window, C) float32 to (B, *window, K); the last batch may be smaller.
    Windows overlap by at least the fraction `overlap` and are spread evenly from edge to edge. A
    volume smaller than the window is surrounded by zeros (air).

    background: the K probabilities of air. A window whose input is 0 throughout has them for
                certain and does not go through `predict`
    context:    `predict` is given that many planes more on both sides of the first axis,
                (B, d + 2 context, h, w, C), zeros outside the volume, and still returns
                (B, d, h, w, K)
    brain_box:  the windows are spread over the smallest box around all voxels that are not 0;
                outside of it everything is `background`

    Besides volume and result it takes the memory of a few windows, whatever the volume's size.
    """
    depth, height, width = window
    size = (depth, height, width)
    result = np.zeros((*volume.shape[:3], len(background)), np.float32)
    box = find_brain_box(volume) if brain_box else _whole(volume)
    if brain_box:
        _fill_outside(result, box, background)
    if box[0].stop == box[0].start:
        return result
    grid = WindowGrid(box, size, overlap)
    # The same of all windows: along an axis where the box is smaller there is one alone.
    inside, _ = shared_part(next(grid.starts()), size, box)
    weights = window_weights(size, weighting)[inside]
    certain = np.broadcast_to(np.asarray(background, np.float32), (*weights.shape, len(background)))
    sums = accumulator(result[box], weights)

    pending: list[tuple[Start, np.ndarray]] = []

    def flush() -> None:
        if pending:
            windows = [window[np.newaxis] for _, window in pending]
            predictions = predict(np.concatenate(windows) if len(windows) > 1 else windows[0])
            for (start, _), values in zip(pending, predictions, strict=True):
                sums.add(shared_part(start, size, box)[1], values[inside])
            pending.clear()

    for start in grid.starts():
        source = _read(volume, start, size, context)
        if source.any():
            pending.append((start, source))
            if len(pending) == batch:
                flush()
        elif any(background):
            sums.add(shared_part(start, size, box)[1], certain)
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
    """A window with its context, (d + 2 context, h, w, C) float32, zeros outside the volume."""
    first = (start[0] - context, *start[1:])
    length = (size[0] + 2 * context, *size[1:])
    inside, place = shared_part(first, length, _whole(volume))
    if all(part.stop - part.start == n for part, n in zip(inside, length, strict=True)):
        return np.asarray(volume[place], np.float32)
    window = np.zeros((*length, volume.shape[3]), np.float32)
    window[inside] = volume[place]
    return window


def _divide(result: np.ndarray, grid: WindowGrid, weights: np.ndarray) -> None:
    """Divide by the sum of the weights at each voxel, computed tile by tile to save memory.

    `weights` (a, b, c) are those of a window's part in the box.
    """
    for tile in grid.tiles():
        norm = np.zeros([part.stop - part.start for part in tile], np.float32)
        for start in grid.starts_over(tile):
            first = [max(s, part.start) for s, part in zip(start, grid.box, strict=True)]
            inside, place = shared_part(first, weights.shape, tile)
            norm[place] += weights[inside]
        for channel in range(result.shape[-1]):
            result[(*tile, channel)] /= norm


_ALIGNMENT = 64
"""Bytes; TensorFlow's kernels need it of every tensor, NumPy's arrays seldom have it."""


def tensor_of(array: np.ndarray) -> tf.Tensor:
    """A float32 array of any strides as a tensor in the computer's memory.

    `tf.convert_to_tensor` copies twice: against later changes of the array, and to align it. Both
    copies live as long as the tensor.
    """
    memory = np.empty(array.size * 4 + _ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % _ALIGNMENT
    aligned = memory[first : first + array.size * 4].view(np.float32).reshape(array.shape)
    aligned[...] = array
    return tf.experimental.dlpack.from_dlpack(aligned.__dlpack__())
