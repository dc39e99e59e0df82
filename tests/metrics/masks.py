"""Pairs of masks to measure, and a reference that asks every voxel."""

import itertools
from collections.abc import Iterator

import numpy as np
from scipy import ndimage
from scipy.spatial.distance import cdist

SHAPE = (6, 9, 7)
Pair = tuple[np.ndarray, np.ndarray, tuple[float, float, float]]


def pairs(number: int, seed: int = 0) -> Iterator[Pair]:
    """Truth, prediction, spacing: noise, blobs, moved copies, single voxels, whole volumes, one
    inside the other, apart, empty; at anisotropic spacings."""
    rng = np.random.default_rng(seed)
    kinds = (_noise, _blobs, _voxel, _full, _empty)
    for truth_kind, other_kind in itertools.islice(
        itertools.cycle(itertools.product(kinds, (*kinds, _moved, _inside))), number
    ):
        truth = truth_kind(rng)
        prediction = other_kind(rng, truth) if other_kind in (_moved, _inside) else other_kind(rng)
        spacing = tuple(float(side) for side in rng.uniform(0.3, 4.0, 3).round(2))
        yield truth, prediction, spacing


def _noise(rng: np.random.Generator) -> np.ndarray:
    return rng.random(SHAPE) < rng.choice([0.01, 0.05, 0.3, 0.7])


def _blobs(rng: np.random.Generator) -> np.ndarray:
    smooth = ndimage.gaussian_filter(rng.standard_normal(SHAPE), 1.2)
    return smooth > np.quantile(smooth, rng.uniform(0.5, 0.95))


def _voxel(rng: np.random.Generator) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[tuple(rng.integers(SHAPE))] = True
    return mask


def _full(rng: np.random.Generator) -> np.ndarray:
    return np.ones(SHAPE, bool)


def _empty(rng: np.random.Generator) -> np.ndarray:
    return np.zeros(SHAPE, bool)


def _moved(rng: np.random.Generator, truth: np.ndarray) -> np.ndarray:
    return np.roll(truth, rng.integers(-2, 3, 3), (0, 1, 2))


def _inside(rng: np.random.Generator, truth: np.ndarray) -> np.ndarray:
    return truth & (rng.random(SHAPE) < 0.5)


def surface_points(mask: np.ndarray) -> np.ndarray:
    """Voxels (N, 3) with one of six neighbours outside, one by one."""
    padded = np.pad(mask, 1)
    steps = [step for step in itertools.product((-1, 0, 1), repeat=3) if np.abs(step).sum() == 1]
    return np.array(
        [
            voxel
            for voxel in np.argwhere(mask)
            if not all(padded[tuple(voxel + 1 + step)] for step in np.array(steps))
        ]
    )


def brute_distances(
    truth: np.ndarray, prediction: np.ndarray, spacing: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """mm from each surface voxel of the one to the other's surface, both ways, from all pairs."""
    scale = np.array(spacing)
    between = cdist(surface_points(truth) * scale, surface_points(prediction) * scale)
    return between.min(1), between.min(0)
