"""Pictures of one size, whatever theirs was."""

import dataclasses

import numpy as np
from PIL import Image

from kerasseg.datasets.case import Case
from kerasseg.datasets.resample import affine_of


def resize_case(case: Case, size: tuple[int, int]) -> Case:
    """A case of pictures (D, H, W, C) with height and width `size`; itself if they are that.

    Images by Pillow's bilinear filter, which averages all pixels that a larger one covers, so that
    thin structures neither vanish nor alias; a pixel of the mask is tumour where at least half of
    its area was. Air, exactly 0 before, is exactly 0 after where it was most of the area.
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
            resized[_resize(signal, size, Image.Resampling.BOX) < 0.5] = 0
        image[index, ..., channel] = resized
    label = case.label
    if label is not None:
        label = np.stack(
            [_resize(mask, size, Image.Resampling.BOX) >= 0.5 for mask in label > 0]
        ).astype(np.uint8)
    scale = (1.0, height / size[0], width / size[1])
    spacing = tuple(old * factor for old, factor in zip(case.spacing, scale, strict=True))
    return dataclasses.replace(
        case, image=image, label=label, spacing=spacing, affine=affine_of(case.affine, scale)
    )


def _resize(values: np.ndarray, size: tuple[int, int], how: Image.Resampling) -> np.ndarray:
    """(H, W) -> (*size) float32."""
    picture = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.asarray(picture.resize(size[::-1], how)).copy()
