"""From the probabilities of a whole volume to its masks.

Connected components of a mask.

Fill what a mask encloses.

What cleaning up needs of the library that holds the masks: numpy, or a TensorFlow graph.

The rule of BraTS for a little enhancing tumour.

Keep the largest of several.

Remove what is too small to be believed.

What `postprocessing` says, done to the masks of one case, channel by channel.

What `postprocessing` says, done to the masks of one case.
"""

import functools
import operator
from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np

from kerasseg import anatomy, targets
from kerasseg.config.evaluation import PostprocessingSettings
from kerasseg.datasets.nifti import bounding_box


def label_components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mask (D, H, W) -> components (D, H, W), numbered from 1, and the voxels of each.

    Voxels that touch at a face, an edge or a corner are connected. Entry 0 of the sizes is 0.
    """
    from scipy import ndimage  # 16 MiB that inference without clean-up does not need

    components = np.zeros(mask.shape, np.int32)
    box = bounding_box(mask)
    components[box], _ = ndimage.label(mask[box], np.ones((3, 3, 3)))
    sizes = np.bincount(components[box].ravel(), minlength=1)
    sizes[0] = 0
    return components, sizes


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Mask (D, H, W) with the voxels that it cuts off from the outside.

    A way out leads through faces of voxels. Along an axis of one voxel there is no outside, so that
    a picture's holes are those of the picture.
    """
    from scipy import ndimage  # 16 MiB that inference without clean-up does not need

    filled = mask.copy()
    flat = tuple(axis for axis, size in enumerate(mask.shape) if size == 1)
    if mask.any() and len(flat) < mask.ndim:
        box = bounding_box(mask)
        inner = np.squeeze(mask[box], axis=flat)
        filled[box] = ndimage.binary_fill_holes(inner).reshape(mask[box].shape)
    return filled


_ROUNDING: Final = 1e-6
"""Relative; a voxel size is float32 in a header and in a request. Sizes are counted in whole
voxels, so a component just large enough must not miss its limit by rounding."""


class VolumeOperations(Protocol):
    """Masks are (D, H, W) bool and know `&`, `|` and `~`."""

    def components(self, mask: Any) -> tuple[Any, Any]:
        """Numbers (D, H, W) of the connected components, 26 neighbours, and the voxels of each
        number; the numbers grow with a component's first voxel. The background counts none."""
        ...

    def fill_holes(self, mask: Any) -> Any:
        """The mask with what it cuts off from the outside; see `fill_holes`."""
        ...

    def take(self, table: Any, places: Any) -> Any:
        """table[places]."""
        ...

    def first_largest(self, sizes: Any) -> Any:
        """The number of the largest size, of equals the first."""
        ...

    def reaches(self, sizes: Any, spacing: Any, minimum: float) -> Any:
        """Whether so many voxels of `spacing` (D, H, W) mm are `minimum` mm^3 or more."""
        ...

    def count(self, mask: Any) -> Any:
        """The voxels of a mask."""
        ...


def least_volume(minimum: float) -> float:
    """mm^3 from which on something is not smaller than `minimum`, whatever was rounded."""
    return minimum * (1 - _ROUNDING)


class ArrayOperations:
    """With numpy and scipy."""

    def components(self, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return label_components(mask)

    def fill_holes(self, mask: np.ndarray) -> np.ndarray:
        return fill_holes(mask)

    def take(self, table: np.ndarray, places: np.ndarray) -> np.ndarray:
        return table[places]

    def first_largest(self, sizes: np.ndarray) -> int:
        return int(sizes.argmax())

    def reaches(self, sizes: Any, spacing: Sequence[float], minimum: float) -> Any:
        return np.asarray(sizes) * float(np.prod(spacing)) >= least_volume(minimum)

    def count(self, mask: np.ndarray) -> int:
        return int(np.count_nonzero(mask))


ARRAYS: Final = ArrayOperations()


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


def keep_largest(mask: Any, operations: VolumeOperations = ARRAYS) -> Any:
    """Mask (D, H, W) with its largest connected component alone; of equals the first."""
    components, sizes = operations.components(mask)
    return (components == operations.first_largest(sizes)) & mask


def remove_small(
    mask: Any, minimum: float, spacing: Any, operations: VolumeOperations = ARRAYS
) -> Any:
    """Mask (D, H, W) without its connected components of less than `minimum` mm^3.

    spacing: voxel size (D, H, W) in mm
    """
    components, sizes = operations.components(mask)
    return operations.take(operations.reaches(sizes, spacing, minimum), components) & mask


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


def finished_masks(
    probabilities: np.ndarray,
    target: str,
    spacing: Sequence[float],
    threshold: float,
    settings: PostprocessingSettings,
) -> np.ndarray:
    """Probabilities (D, H, W, K) -> masks (D, H, W, K) bool, cleaned up.

    threshold: of the channels that have none in `settings.thresholds`
    spacing:   voxel size (D, H, W) in mm
    """
    thresholds = channel_thresholds(target, threshold, settings)
    masks = targets.probabilities_to_masks(probabilities, target, thresholds)
    return clean_up(masks, target, spacing, settings)


def channel_thresholds(
    target: str, threshold: float, settings: PostprocessingSettings
) -> list[float]:
    """Of each channel its own of `settings.thresholds`, or `threshold`."""
    own = {str(name): value for name, value in settings.thresholds.items()}
    return [own.get(name, threshold) for name in anatomy.TARGETS[target]]
