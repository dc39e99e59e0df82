"""How much each voxel of a window counts."""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np

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
