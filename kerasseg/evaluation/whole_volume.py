"""A stored box put back into its scan."""

import numpy as np

from kerasseg.records.schema import StoredCase


def whole_volume(stored: StoredCase, box: np.ndarray) -> np.ndarray:
    """(d, h, w, …) of the stored box -> (D, H, W, …) of the scan it was cut from, 0 around it."""
    if box.shape[:3] == tuple(stored.full_shape):
        return box
    whole = np.zeros((*stored.full_shape, *box.shape[3:]), box.dtype)
    inner = zip(stored.offset, box.shape[:3], strict=True)
    whole[tuple(slice(first, first + size) for first, size in inner)] = box
    return whole
