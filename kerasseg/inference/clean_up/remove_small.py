"""Remove what is too small to be believed."""

from typing import Any

from kerasseg.inference.clean_up.volume_operations import ARRAYS, VolumeOperations


def remove_small(
    mask: Any, minimum: float, spacing: Any, operations: VolumeOperations = ARRAYS
) -> Any:
    """Mask (D, H, W) without its connected components of less than `minimum` mm^3.

    spacing: voxel size (D, H, W) in mm
    """
    components, sizes = operations.components(mask)
    return operations.take(operations.reaches(sizes, spacing, minimum), components) & mask
