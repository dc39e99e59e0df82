"""What `postprocessing` says, done to the masks of one case."""

from collections.abc import Sequence

import numpy as np

from kerasseg import anatomy
from kerasseg.inference.clean_up.enhancing_to_necrosis import enhancing_to_necrosis
from kerasseg.inference.clean_up.fill_holes import fill_holes
from kerasseg.inference.clean_up.keep_largest import keep_largest
from kerasseg.inference.clean_up.remove_small import remove_small
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
    if settings == PostprocessingSettings(thresholds=settings.thresholds):
        return masks
    masks = masks.copy()
    channels = list(anatomy.TARGETS[target])
    tumour = [channels.index(name) for name in anatomy.tumour_channels(target)]
    nested = target == "regions"
    minimum = {str(name): volume for name, volume in settings.minimum_volume.items()}
    for index in tumour:
        name, before = channels[index], masks[..., index].copy()
        after = before
        if minimum.get(name):
            after = remove_small(after, minimum[name], spacing)
        if name in settings.keep_largest:
            after = keep_largest(after)
        masks[..., index] = after
        if name in settings.fill_holes:
            filled = fill_holes(after)
            free = True if nested else ~masks[..., tumour].any(axis=-1)
            after = after | (filled & free)
            masks[..., index] = after
        if nested:
            masks[..., index:] &= ~(before & ~after)[..., np.newaxis]
            masks[..., :index] |= (after & ~before)[..., np.newaxis]
    if settings.minimum_enhancing:
        masks = enhancing_to_necrosis(masks, target, settings.minimum_enhancing, spacing)
    if len(tumour) < len(channels):
        background = channels.index(anatomy.LABELS[anatomy.BACKGROUND])
        masks[..., background] = ~masks[..., tumour].any(axis=-1)
    return masks
