"""What `postprocessing` says, done to the masks of one case, channel by channel."""

import functools
import operator
from collections.abc import Sequence
from typing import Any

from kerasseg import anatomy
from kerasseg.inference.clean_up.enhancing_to_necrosis import enhancing_to_necrosis
from kerasseg.inference.clean_up.keep_largest import keep_largest
from kerasseg.inference.clean_up.remove_small import remove_small
from kerasseg.inference.clean_up.volume_operations import ARRAYS, VolumeOperations
from kerasseg.settings.postprocessing import PostprocessingSettings


def clean_channels(
    masks: Sequence[Any],
    target: str,
    spacing: Any,
    settings: PostprocessingSettings,
    operations: VolumeOperations = ARRAYS,
) -> list[Any]:
    """The K masks (D, H, W) bool of `target` -> the same cleaned up; see `clean_up`.

    spacing: voxel size (D, H, W) in mm
    """
    result = list(masks)
    channels = list(anatomy.TARGETS[target])
    tumour = [channels.index(name) for name in anatomy.tumour_channels(target)]
    minimum = {str(name): volume for name, volume in settings.minimum_volume.items()}
    for index in tumour:
        name, before = channels[index], result[index]
        after = before
        if minimum.get(name):
            after = remove_small(after, minimum[name], spacing, operations)
        if name in settings.keep_largest:
            after = keep_largest(after, operations)
        result[index] = after
        if name in settings.fill_holes:
            filled = operations.fill_holes(after)
            if target != "regions":
                filled = filled & ~_union(result[other] for other in tumour)
            after = after | filled
            result[index] = after
        if target == "regions" and after is not before:
            gone, new = before & ~after, after & ~before
            for other in range(index + 1, len(channels)):
                result[other] = result[other] & ~gone
            for other in range(index):
                result[other] = result[other] | new
    if settings.minimum_enhancing:
        result = enhancing_to_necrosis(
            result, target, settings.minimum_enhancing, spacing, operations
        )
    if len(tumour) < len(channels):
        background = channels.index(anatomy.LABELS[anatomy.BACKGROUND])
        result[background] = ~_union(result[index] for index in tumour)
    return result


def _union(masks: Any) -> Any:
    return functools.reduce(operator.or_, masks)
