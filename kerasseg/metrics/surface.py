"""The surface of a mask."""

import numpy as np
from scipy import ndimage


def surface(mask: np.ndarray) -> np.ndarray:
    """Voxels of a boolean mask (D, H, W) that have a face neighbour outside it: the mask minus its
    erosion, as in MONAI and MedPy.

    Beyond the volume is outside. An axis of one voxel is none: the surface of a slice (1, H, W) is
    its contour, as these two find it in a picture (H, W).
    """
    if 1 in mask.shape:
        wide = tuple(side for side in mask.shape if side > 1)
        flat = mask.reshape(wide or (1,))
        return (flat & ~ndimage.binary_erosion(flat)).reshape(mask.shape)
    return mask & ~ndimage.binary_erosion(mask)
