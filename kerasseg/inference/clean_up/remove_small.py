"""Remove what is too small to be believed."""

from collections.abc import Sequence

import numpy as np

from kerasseg.inference.clean_up.components import label_components


def remove_small(mask: np.ndarray, minimum: float, spacing: Sequence[float]) -> np.ndarray:
    """Mask (D, H, W) without its connected components of less than `minimum` mm^3.

    spacing: voxel size (D, H, W) in mm
    """
    components, sizes = label_components(mask)
    # Sizes in float64: half a million voxels of 0.98 mm must not miss their limit by rounding.
    large = sizes * float(np.prod(spacing)) >= minimum * (1 - 1e-9)
    large[0] = False
    return large[components]
