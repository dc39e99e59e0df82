"""The rule of BraTS for a little enhancing tumour."""

from collections.abc import Sequence
from typing import Any

from kerasseg import anatomy
from kerasseg.inference.clean_up.volume_operations import ARRAYS, VolumeOperations


def enhancing_to_necrosis(
    masks: Sequence[Any],
    target: str,
    minimum: float,
    spacing: Any,
    operations: VolumeOperations = ARRAYS,
) -> list[Any]:
    """K masks (D, H, W), in which all enhancing tumour is necrotic core if it is under `minimum`.

    minimum: mm^3 of the whole case
    spacing: voxel size (D, H, W) in mm

    A case without enhancing tumour scores 0 for a single voxel of it, and 1 without (Isensee et al.
    2020, arXiv:2011.00848). Of `regions` the tumour core keeps the voxels.
    """
    channels, result = list(anatomy.TARGETS[target]), list(masks)
    enhancing = masks[channels.index("ET")]
    enough = operations.reaches(operations.count(enhancing), spacing, minimum)
    # With TC only ET's own channel has to go: core that is not enhancing is NCR.
    for name in ("TC" if "TC" in channels else "NCR", "WT"):
        if name in channels:
            index = channels.index(name)
            result[index] = masks[index] | (enhancing & ~enough)
    result[channels.index("ET")] = enhancing & enough
    return result
