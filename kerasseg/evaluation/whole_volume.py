"""A stored box put back into its scan."""

import numpy as np

from kerasseg.records.schema import StoredCase


def whole_volume(
    stored: StoredCase, box: np.ndarray, around: float | list[float] = 0
) -> np.ndarray:
    """(d, h, w, …) of the stored box -> (D, H, W, …) of the scan it was cut from.

    around: the value of the voxels around it, or of each channel of them
    """
    if box.shape[:3] == tuple(stored.full_shape):
        return box
    shape = (*stored.full_shape, *box.shape[3:])
    whole = np.zeros(shape, box.dtype)
    if np.any(around):
        whole[...] = around
    inner = zip(stored.offset, box.shape[:3], strict=True)
    whole[tuple(slice(first, first + size) for first, size in inner)] = box
    return whole
