"""From the probabilities of a whole volume to its masks: thresholds, then the clean-up.

`postprocessed_masks` does all of it with NumPy and SciPy. The rules (`postprocess_channels` and
what it calls) are written for masks of any library: exported models apply them to the tensors of a
graph (`serving.graph_postprocessing`).
"""

import functools
import operator
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from kerasseg import anatomy, targets
from kerasseg.config.evaluation import PostprocessingSettings
from kerasseg.datasets.case import bounding_box

_ROUNDING: Final = 1e-6
"""Relative; a voxel size is float32 in a header and in a request. Sizes are counted in whole
voxels, so a component just large enough must not miss its limit by rounding."""


class MaskOperations:
    """The operations of the clean-up that depend on the library, here with NumPy and SciPy.

    Masks are (D, H, W) bool and know `&`, `|` and `~`. `serving.graph_postprocessing` has the same
    operations on tensors.
    """

    def components(self, mask: Any) -> tuple[Any, Any]:
        """Return the number of each voxel's connected component, and the size of each number.

        Voxels that touch at a face, an edge or a corner are connected. The numbers (D, H, W) grow
        with a component's first voxel; a number may be left out. Outside the mask is 0, whose size
        is 0.
        """
        from scipy import ndimage  # 16 MiB that inference without clean-up does not need

        components = np.zeros(mask.shape, np.int32)
        box = bounding_box(mask)
        components[box], _ = ndimage.label(mask[box], np.ones((3, 3, 3)))
        sizes = np.bincount(components[box].ravel(), minlength=1)
        sizes[0] = 0
        return components, sizes

    def fill_holes(self, mask: Any) -> Any:
        """Return the mask with the voxels that it cuts off from the outside.

        A way out leads through faces of voxels. Along an axis of one voxel there is no outside, so
        the holes of a picture are those within the picture.
        """
        from scipy import ndimage  # as above

        filled = mask.copy()
        flat = tuple(axis for axis, size in enumerate(mask.shape) if size == 1)
        if mask.any() and len(flat) < mask.ndim:
            box = bounding_box(mask)
            inner = np.squeeze(mask[box], axis=flat)
            filled[box] = ndimage.binary_fill_holes(inner).reshape(mask[box].shape)
        return filled

    def take(self, table: Any, places: Any) -> Any:
        """Return table[places]."""
        return table[places]

    def first_largest(self, sizes: Any) -> Any:
        """Return the index of the largest size, the first of equals."""
        return int(sizes.argmax())

    def reaches(self, sizes: Any, spacing: Any, minimum: float) -> Any:
        """Return whether so many voxels of `spacing` (D, H, W) mm are `minimum` mm³ or more."""
        return np.asarray(sizes) * float(np.prod(spacing)) >= volume_limit(minimum)

    def count(self, mask: Any) -> Any:
        """Return the number of voxels in a mask."""
        return int(np.count_nonzero(mask))


ARRAYS: Final = MaskOperations()


def volume_limit(minimum: float) -> float:
    """Return the mm³ from which on a volume counts as `minimum`, however it was rounded."""
    return minimum * (1 - _ROUNDING)


def postprocessed_masks(
    probabilities: np.ndarray,
    target: str,
    spacing: Sequence[float],
    threshold: float,
    settings: PostprocessingSettings,
) -> np.ndarray:
    """Return the cleaned masks (D, H, W, K) bool of probabilities (D, H, W, K).

    `spacing` is the voxel size (D, H, W) in mm, `threshold` that of channels without their own.
    """
    thresholds = channel_thresholds(target, threshold, settings)
    masks = targets.probabilities_to_masks(probabilities, target, thresholds)
    return postprocess_masks(masks, target, spacing, settings)


def channel_thresholds(
    target: str, threshold: float, settings: PostprocessingSettings
) -> list[float]:
    """Return the threshold of each channel: its own of `settings.thresholds`, or `threshold`."""
    own = {str(name): value for name, value in settings.thresholds.items()}
    return [own.get(name, threshold) for name in anatomy.TARGETS[target]]


def postprocess_masks(
    masks: np.ndarray, target: str, spacing: Sequence[float], settings: PostprocessingSettings
) -> np.ndarray:
    """Return the masks (D, H, W, K) bool cleaned up as `postprocess_channels` says."""
    if settings.changes_nothing:
        return masks
    channels = [masks[..., index] for index in range(masks.shape[-1])]
    return np.stack(postprocess_channels(channels, target, spacing, settings), axis=-1)


def postprocess_channels(
    masks: Sequence[Any],
    target: str,
    spacing: Any,
    settings: PostprocessingSettings,
    operations: MaskOperations = ARRAYS,
) -> list[Any]:
    """Return the K masks (D, H, W) bool of a target cleaned up.

    Channel by channel in the order of the target, small components are removed, all but the largest
    are removed, and holes are filled; then comes the rule for enhancing tumour. What is removed
    from a region is removed from the regions inside it, too, and what is added is added to those
    around it. Holes of a sub-region are filled only with voxels that belong to no other. In
    `labels` the background is what is left.

    Args:
        masks: one mask per channel. They stay as they are.
        target: what the channels are.
        spacing: voxel size (D, H, W) in mm.
        settings: the section `postprocessing`.
        operations: those of the library that holds the masks.
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
                filled = after | (filled & ~union(result[other] for other in tumour))
            result[index] = after = filled
        if target == "regions" and after is not before:
            removed, added = before & ~after, after & ~before
            for other in range(index + 1, len(channels)):
                result[other] = result[other] & ~removed
            for other in range(index):
                result[other] = result[other] | added
    if settings.minimum_enhancing:
        least = settings.minimum_enhancing
        result = enhancing_to_necrosis(result, target, least, spacing, operations)
    if len(tumour) < len(channels):
        background = channels.index(anatomy.LABELS[anatomy.BACKGROUND])
        result[background] = ~union(result[index] for index in tumour)
    return result


def remove_small(
    mask: Any, minimum: float, spacing: Any, operations: MaskOperations = ARRAYS
) -> Any:
    """Return a mask (D, H, W) without its connected components of less than `minimum` mm³.

    `spacing` is the voxel size (D, H, W) in mm.
    """
    components, sizes = operations.components(mask)
    return operations.take(operations.reaches(sizes, spacing, minimum), components) & mask


def keep_largest(mask: Any, operations: MaskOperations = ARRAYS) -> Any:
    """Return the largest connected component of a mask (D, H, W), the first of equals."""
    components, sizes = operations.components(mask)
    return (components == operations.first_largest(sizes)) & mask


def enhancing_to_necrosis(
    masks: Sequence[Any],
    target: str,
    minimum: float,
    spacing: Any,
    operations: MaskOperations = ARRAYS,
) -> list[Any]:
    """Return the K masks (D, H, W) with all enhancing tumour made necrotic core if it is small.

    A case without enhancing tumour scores 0 for a single voxel of it, and 1 without (Isensee et al.
    2020, arXiv:2011.00848). Of `regions` the tumour core keeps the voxels.

    Small is less than `minimum` mm³ in the whole case; `spacing` is the voxel size (D, H, W) in mm.
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


def union(masks: Iterable[Any]) -> Any:
    """Return where any of the masks holds."""
    return functools.reduce(operator.or_, masks)
