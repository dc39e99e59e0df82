"""A volume of any size through a network of fixed window size."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np

Weighting = Literal["gaussian", "constant"]

_GAUSSIAN_SIGMA = 1 / 8
"""Standard deviation as a fraction of the window (Isensee et al. 2021, nnU-Net)."""
_SMALLEST_WEIGHT = 1e-3
"""Relative to the centre; keeps corners that only one window reaches from dividing by ~0."""


def sliding_window(
    predict: Callable[[np.ndarray], np.ndarray],
    volume: np.ndarray,
    window: Sequence[int],
    *,
    overlap: float = 0.5,
    weighting: Weighting = "gaussian",
    batch: int = 1,
    context: int = 0,
) -> np.ndarray:
    """Volume (D, H, W, C) -> weighted mean of the windows' predictions (D, H, W, K) float32.

    `predict` maps (B, *window, C) float32 to (B, *window, K); the last batch may be smaller.
    Windows overlap by at least the fraction `overlap` and are spread evenly from edge to edge. A
    volume smaller than the window is padded evenly with zeros (air), and cut back.

    With `context`, `predict` is given that many planes more on both sides of the first axis,
    (B, d + 2 context, h, w, C), zeros outside the volume, and still returns (B, d, h, w, K).
    """
    shape = volume.shape[:3]
    padded = [max(n, w) for n, w in zip(shape, window, strict=True)]
    before = [(p - n) // 2 for p, n in zip(padded, shape, strict=True)]
    inner = tuple(slice(b, b + n) for b, n in zip(before, shape, strict=True))
    source = np.zeros((padded[0] + 2 * context, *padded[1:], volume.shape[3]), np.float32)
    source[context : context + padded[0]][inner] = volume
    weights = window_weights(window, weighting)
    total: np.ndarray | None = None
    weight_sum = np.zeros(padded, np.float32)
    for places in _batches(window_starts(padded, window, overlap), batch):
        boxes = [
            tuple(slice(s, s + w) for s, w in zip(start, window, strict=True)) for start in places
        ]
        windows = np.stack([source[_widened(box, context)] for box in boxes])
        predictions = np.asarray(predict(windows), np.float32)
        if total is None:
            total = np.zeros((*padded, predictions.shape[-1]), np.float32)
        for box, prediction in zip(boxes, predictions, strict=True):
            total[box] += prediction * weights[..., np.newaxis]
            weight_sum[box] += weights
    assert total is not None  # there is always at least one window
    total /= weight_sum[..., np.newaxis]
    return total[inner]


def window_starts(
    shape: Sequence[int], window: Sequence[int], overlap: float
) -> list[tuple[int, ...]]:
    """First voxels of the windows over `shape`, evenly spread and touching both edges."""
    axes = []
    for length, size in zip(shape, window, strict=True):
        step = max(int(size * (1 - overlap)), 1)
        count = -(-(length - size) // step) + 1
        axes.append([round(i * (length - size) / max(count - 1, 1)) for i in range(count)])
    return list(itertools.product(*axes))


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


def _widened(box: tuple[slice, ...], context: int) -> tuple[slice, ...]:
    """A box of the volume -> the same with its context in the source, which starts earlier."""
    return (slice(box[0].start, box[0].stop + 2 * context), *box[1:])


def _batches(items: list[tuple[int, ...]], size: int) -> Iterator[list[tuple[int, ...]]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
