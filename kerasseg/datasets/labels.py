"""A dataset's own label ids -> canonical ids."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kerasseg.anatomy import BRATS_LABEL_MAP
from kerasseg.errors import UserError

_INTEGER_TOLERANCE = 1e-3
"""Label maps stored as float with a slope come back as 0.99999."""


def canonical_labels(values: np.ndarray, label_map: Mapping[int, int], where: Any) -> np.ndarray:
    """Map a label array of any integer or float dtype to canonical uint8 ids of the same shape.

    `where` is the file, for the message. Raises `UserError` for a value that is no integer, one
    that `label_map` does not know, or 3 and 4 in one file under the default map.
    """
    if not np.isfinite(values).all():
        raise UserError(f"{where}: a segmentation holds NaN or infinite values: repair the file.")
    rounded = np.rint(values) if np.issubdtype(values.dtype, np.floating) else values
    found = np.unique(rounded)
    if rounded is not values and not np.allclose(values, rounded, atol=_INTEGER_TOLERANCE):
        raise UserError(
            f"{where}: a segmentation must hold whole numbers, found values such as "
            f"{float(values[np.abs(values - rounded) > _INTEGER_TOLERANCE][0]):.4g}: "
            "was it resampled with interpolation? Use the original file."
        )
    unknown = [int(v) for v in found if int(v) not in label_map]
    if unknown:
        raise UserError(
            f"{where}: label value(s) {unknown} are unknown, known are {sorted(label_map)}: "
            "remap the file, or name them in data.label_map."
        )
    if label_map == BRATS_LABEL_MAP and {3, 4} <= set(found.tolist()):
        raise UserError(
            f"{where}: labels 3 and 4 both occur. Up to BraTS 2021 enhancing tumour is 4, from "
            "2023 on it is 3, and in BraTS 2024 4 is a resection cavity: say what each id is in "
            "data.label_map."
        )
    table = np.array([label_map[int(value)] for value in found], np.uint8)
    return table[np.searchsorted(found, rounded)]
