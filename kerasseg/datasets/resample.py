"""Resampling volumes to another grid of the same axes, and resizing pictures.

Images are interpolated by splines, segmentations class by class.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from PIL import Image
from scipy import ndimage

from kerasseg.datasets.case import Case, Grid, spacing_of

SAME_SPACING: Final = 1e-3
"""Relative difference up to which voxel sizes are equal; headers round them."""
TIE: Final = 2.0**-13
"""Voxel sizes are float32, so what is a tie on paper (half of a new voxel was air, a grid would
have 49.5 voxels) comes out a little above or below. What differs by less than this counts as a tie.
It is a power of two, so that multiplying by it rounds nothing."""
HALF: Final = 0.5 - TIE
"""A voxel of a new grid is air, exactly 0, if less than this share of what it covers was signal,
and a pixel of a mask is tumour from this share on. A tie is signal, and tumour."""


def grid_step(old: Any, new: Any, shape: Any, library: Any) -> tuple[Any, Any]:
    """Return the size of new voxels in old ones, and the shape of their grid over the same field.

    Args:
        old: voxel size (D, H, W) in mm, (3,) float64.
        new: the one that is wanted.
        shape: length of the old grid, (3,) float64.
        library: `numpy`, or `tensorflow` in the graph of an exported model.
    """
    scale = new / old
    # A tie goes to the even number, whichever side of it the division has come out on.
    length = library.round(shape / scale / TIE) * TIE
    return scale, library.maximum(library.round(length), 1.0)


def first_centre(scale: Any) -> Any:
    """Return the centre of the first voxel of a grid, `scale` times as large, in old voxels.

    Both grids start at the same outer corner.
    """
    return (scale - 1) / 2


def same_spacing(old: Any, new: Any, library: Any) -> Any:
    """Return for each axis whether two voxel sizes are the same but for rounding."""
    return library.abs(old - new) <= SAME_SPACING * new


def resample_case(case: Case, spacing: Sequence[float], order: int) -> Case:
    """Resample a case to voxels of `spacing` (D, H, W) mm; return it as it is if it has them.

    The field of view stays: the outer faces of the new grid are those of the old one, up to half
    a voxel where its length is no multiple of the spacing.
    """
    old, new = np.asarray(case.spacing, float), np.asarray(spacing, float)
    if same_spacing(old, new, np).all():
        return case
    scale, shape = grid_step(old, new, np.asarray(case.image.shape[:3], float), np)
    return case_on(case, [int(n) for n in shape], affine_of(case.affine, scale), order)


def case_on(case: Case, shape: Sequence[int], affine: np.ndarray, order: int) -> Case:
    """Resample a case to the grid of `shape` (D, H, W) and `affine`, which has the same axes."""
    label = case.label
    return Case(
        case_id=case.case_id,
        patient_id=case.patient_id,
        image=resample_image(case.image, case.affine, shape, affine, order),
        label=None if label is None else resample_label(label, case.affine, shape, affine),
        spacing=spacing_of(affine),
        affine=affine,
        modalities=case.modalities,
        grid=case.grid,
        classes=case.classes,
        attributes=case.attributes,
        notes=case.notes,
        enhancing_id=case.enhancing_id,
    )


def affine_of(affine: np.ndarray, scale: Sequence[float]) -> np.ndarray:
    """Return the affine of a grid whose voxels are `scale` (D, H, W) times as long.

    The first voxel's outer corner stays where it is, so its centre moves.
    """
    step = np.diag([*scale, 1.0])
    step[:3, 3] = first_centre(np.asarray(scale))
    return affine @ step


def same_field(
    shape: Sequence[int], affine: np.ndarray, other_shape: Sequence[int], other_affine: np.ndarray
) -> bool:
    """Return whether two grids cover the same space, but for one of their voxels on each side.

    Grids that `data.size` or `data.spacing` make of a scan do.
    """
    corners = [
        matrix @ np.array([[-0.5, n - 0.5] for n in lengths] + [[1, 1]])
        for lengths, matrix in ((shape, affine), (other_shape, other_affine))
    ]
    voxel = np.maximum(*(np.abs(m[:3, :3]).sum(axis=1) for m in (affine, other_affine)))
    return bool((np.abs(corners[0] - corners[1])[:3] <= voxel[:, np.newaxis]).all())


def resample_image(
    image: np.ndarray, affine: np.ndarray, shape: Sequence[int], new_affine: np.ndarray, order: int
) -> np.ndarray:
    """Resample an image (D, H, W, C) to (*shape, C) float32.

    `order` is that of the splines: 1 (linear) or 3 (cubic).

    Air, exactly 0 before, is exactly 0 after: splines ring, and would paint it over. A voxel is
    air when most of what it covers was.
    """
    result = np.zeros((*shape, image.shape[-1]), np.float32)
    for channel in range(image.shape[-1]):
        values = np.ascontiguousarray(image[..., channel])
        signal = values != 0
        new = _interpolate(values, affine, shape, new_affine, order)
        if not signal.all():
            covered = _interpolate(signal.astype(np.float32), affine, shape, new_affine, 1)
            new[covered < HALF] = 0
        result[..., channel] = new
    return result


def resample_label(
    label: np.ndarray, affine: np.ndarray, shape: Sequence[int], new_affine: np.ndarray
) -> np.ndarray:
    """Resample a label (D, H, W) to `shape`: each id linearly, and the largest share wins.

    No id appears that was not there. A tie goes to the smaller id.
    """
    ids = np.unique(label)
    result = np.full(shape, ids[0], label.dtype)
    best = np.full(shape, -1.0, np.float32)
    for class_id in ids:
        share = _interpolate((label == class_id).astype(np.float32), affine, shape, new_affine, 1)
        better = share > best + TIE
        result[better] = class_id
        best[better] = share[better]
    return result


def resample_probabilities(
    probabilities: np.ndarray, affine: np.ndarray, shape: Sequence[int], new_affine: np.ndarray
) -> np.ndarray:
    """Resample probabilities (D, H, W, K) linearly to (*shape, K) float32; sums of 1 stay 1."""
    result = np.empty((*shape, probabilities.shape[-1]), np.float32)
    for channel in range(result.shape[-1]):
        values = probabilities[..., channel]
        result[..., channel] = _interpolate(values, affine, shape, new_affine, 1)
    return result


def restore_label(label: np.ndarray, affine: np.ndarray, grid: Grid) -> np.ndarray:
    """Bring a label (D, H, W) with the given affine to the voxels (x, y, z) of `grid`.

    The way back is exact where nothing was resampled, and class by class otherwise.
    """
    ours = label
    if label.shape != grid.our_shape or not np.allclose(affine, grid.our_affine, atol=1e-6):
        ours = resample_label(label, affine, grid.our_shape, grid.our_affine)
    return np.ascontiguousarray(grid.to_file(ours))


def _interpolate(
    values: np.ndarray, affine: np.ndarray, shape: Sequence[int], new_affine: np.ndarray, order: int
) -> np.ndarray:
    """Interpolate at the voxel centres of the new grid, whose axes must be those of the old one."""
    step = np.linalg.inv(affine) @ new_affine
    scale, shift = np.diag(step)[:3], step[:3, 3]
    for i, j in itertools.permutations(range(3), 2):
        if abs(step[i, j]) * max(shape[j], 1) > 1e-2:
            raise ValueError("the two grids have different axes")
    # A length-1 axis has nothing to interpolate, and splines need two voxels.
    order = min(order, 1) if min(values.shape) < 2 else order
    return ndimage.affine_transform(
        values, scale, shift, output_shape=tuple(shape), order=order, mode="nearest"
    )


def resize_case(case: Case, size: tuple[int, int]) -> Case:
    """Resize a case of pictures (D, H, W, C) to height and width `size`, if it has others.

    Images go through Pillow's bilinear filter, which averages all pixels that a larger one covers,
    so that thin structures neither vanish nor alias. A pixel of the mask is tumour where at least
    half of its area was. Air, exactly 0 before, is exactly 0 after where it was most of the area.
    """
    height, width = case.image.shape[1:3]
    if size == (height, width):
        return case
    image = np.zeros((case.image.shape[0], *size, case.image.shape[3]), np.float32)
    for index, channel in np.ndindex(case.image.shape[0], case.image.shape[3]):
        values = case.image[index, ..., channel]
        resized = _resize(values, size, Image.Resampling.BILINEAR)
        signal = values != 0
        if not signal.all():
            resized[_resize(signal, size, Image.Resampling.BOX) < HALF] = 0
        image[index, ..., channel] = resized
    label = case.label
    if label is not None:
        label = np.stack(
            [_resize(mask, size, Image.Resampling.BOX) >= HALF for mask in label > 0]
        ).astype(np.uint8)
    scale = (1.0, height / size[0], width / size[1])
    spacing = tuple(old * factor for old, factor in zip(case.spacing, scale, strict=True))
    return dataclasses.replace(
        case, image=image, label=label, spacing=spacing, affine=affine_of(case.affine, scale)
    )


def _resize(values: np.ndarray, size: tuple[int, int], how: Image.Resampling) -> np.ndarray:
    """Resize (H, W) to `size`, float32."""
    picture = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.asarray(picture.resize(size[::-1], how)).copy()
