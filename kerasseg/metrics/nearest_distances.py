"""Distance of points of a grid to the nearest of others."""

import time

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

_POINTS = 256
"""Asked of a tree between two looks at the clock."""

_TRANSFORM = 6e-8
"""Seconds a voxel that a distance transform takes, about."""

_TREE = 2e-7
"""Seconds a point that building a tree takes, about."""


def nearest_distances(
    points: np.ndarray,
    others: np.ndarray,
    spacing: tuple[float, float, float],
    patience: float = 0.5,
) -> np.ndarray:
    """Distance in mm, float64 (N,), of each of N points to the nearest of M others.

    points, others: indices (N, 3), (M, 3) of a grid whose steps are `spacing` mm; M at least 1
    patience:       for how many times as long as a distance transform of the box a tree is asked

    A k-d tree is fast for surfaces that lie near each other, whatever the box around them, and a
    hundred times slower for some that are far apart. So it is asked first; when its time is up, a
    transform, which takes the same time for all, does the rest.
    """
    start = np.minimum(points.min(0, initial=others[0].min()), others.min(0))
    points, others = points - start, others - start
    grid = np.zeros(np.maximum(points.max(0, initial=0), others.max(0)) + 1, bool)
    grid[tuple(others.T)] = True
    distances = np.zeros(len(points))
    apart = np.flatnonzero(~grid[tuple(points.T)])
    budget = _TRANSFORM * grid.size * patience
    done, deadline = 0, time.thread_time() + budget
    if len(apart) and _TREE * len(others) < budget:
        # A balanced tree takes longer to build than it saves for one question per point.
        scale = np.asarray(spacing)
        tree = KDTree(others * scale, leafsize=32, balanced_tree=False, compact_nodes=False)
        while done < len(apart) and time.thread_time() < deadline:
            some = apart[done : done + _POINTS]
            distances[some] = tree.query(points[some] * scale)[0]
            done += len(some)
    if done < len(apart):
        rest = apart[done:]
        # Distances of all voxels would take three times as long as the nearest voxel of each.
        nearest = ndimage.distance_transform_edt(
            ~grid, sampling=spacing, return_distances=False, return_indices=True
        )
        away = nearest[(slice(None), *points[rest].T)].T - points[rest]
        distances[rest] = np.sqrt(((away * np.asarray(spacing)) ** 2).sum(1))
    return distances
