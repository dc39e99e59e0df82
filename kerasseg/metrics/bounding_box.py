"""The smallest box around a mask."""

import numpy as np


def bounding_box(mask: np.ndarray) -> tuple[slice, slice, slice]:
    """Slices of the smallest box that holds every voxel of a boolean mask (D, H, W).

    ValueError where the mask is empty.
    """
    plane = np.logical_or.reduce(mask, axis=0)
    depth = _extent(np.logical_or.reduce(mask, axis=(1, 2)))
    return (
        depth,
        _extent(np.logical_or.reduce(plane, axis=1)),
        _extent(np.logical_or.reduce(plane, axis=0)),
    )


def _extent(line: np.ndarray) -> slice:
    places = np.flatnonzero(line)
    if not places.size:
        raise ValueError("an empty mask has no bounding box")
    return slice(int(places[0]), int(places[-1]) + 1)
