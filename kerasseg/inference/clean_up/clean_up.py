"""What `postprocessing` says, done to the masks of one case."""

from collections.abc import Sequence

import numpy as np

from kerasseg.inference.clean_up.clean_channels import clean_channels
from kerasseg.settings.postprocessing import PostprocessingSettings


def clean_up(
    masks: np.ndarray, target: str, spacing: Sequence[float], settings: PostprocessingSettings
) -> np.ndarray:
    """Masks (D, H, W, K) bool -> the same cleaned up; `spacing` is the voxel size (D, H, W) in mm.

    Channel by channel in the order of the target: small components go, the largest stays, holes
    are filled; then the rule for enhancing tumour. What is taken from a region is taken from the
    regions inside it, too, and what is added is added to those around it. Holes of a sub-region are
    filled with voxels that belong to none. Of `labels` the background is what is left. `masks`
    stays as it is.
    """
    if settings.changes_nothing:
        return masks
    channels = [masks[..., index] for index in range(masks.shape[-1])]
    return np.stack(clean_channels(channels, target, spacing, settings), axis=-1)
