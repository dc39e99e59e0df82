"""The rule of BraTS for a little enhancing tumour."""

from collections.abc import Sequence

import numpy as np

from kerasseg import anatomy


def enhancing_to_necrosis(
    masks: np.ndarray, target: str, minimum: float, spacing: Sequence[float]
) -> np.ndarray:
    """Masks (D, H, W, K) in which all enhancing tumour is necrotic core if it is under `minimum`.

    minimum: mm^3 of the whole case
    spacing: voxel size (D, H, W) in mm

    A case without enhancing tumour scores 0 for a single voxel of it, and 1 without (Isensee et al.
    2020, arXiv:2011.00848). Of `regions` the tumour core keeps the voxels.
    """
    channels = list(anatomy.TARGETS[target])
    enhancing = masks[..., channels.index("ET")]
    if np.count_nonzero(enhancing) * float(np.prod(spacing)) >= minimum * (1 - 1e-9):
        return masks
    masks = masks.copy()
    # With TC only ET's own channel has to go: core that is not enhancing is NCR.
    core = channels.index("TC" if "TC" in channels else "NCR")
    masks[..., core] |= enhancing
    if "WT" in channels:
        masks[..., channels.index("WT")] |= enhancing
    masks[..., channels.index("ET")] = False
    return masks
