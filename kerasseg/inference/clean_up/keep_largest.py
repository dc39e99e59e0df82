"""Keep the largest of several."""

from typing import Any

from kerasseg.inference.clean_up.volume_operations import ARRAYS, VolumeOperations


def keep_largest(mask: Any, operations: VolumeOperations = ARRAYS) -> Any:
    """Mask (D, H, W) with its largest connected component alone; of equals the first."""
    components, sizes = operations.components(mask)
    return (components == operations.first_largest(sizes)) & mask
