"""A dataset's own label ids -> canonical ids."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kerasseg.errors import UserError

_INTEGER_TOLERANCE = 1e-3
"""Label maps stored as float with a slope come back as 0.99999."""


def canonical_labels(values: np.ndarray, label_map: Mapping[int, int], where: Any) -> np.ndarray:
    """Map a label array of any integer or float dtype to canonical uint8 ids of the same shape.

    `where` is the file, for the message. Raises `UserError` for a value that is no integer, one
    that `label_map` does not know, or two ids in one file that mean the same canonical class.
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
    sources: dict[int, int] = {}
    for value in (int(v) for v in found):
        canonical = label_map[value]
        if canonical and canonical in sources:
            raise UserError(
                f"{where}: labels {sources[canonical]} and {value} stand for the same class in "
                "data.label_map, yet both occur in this file, so one of them means something "
                "else: say what each is in data.label_map."
            )
        sources[canonical] = value
    table = np.zeros(int(found.max(initial=0)) + 1, np.uint8)
    for value in found:
        table[int(value)] = label_map[int(value)]
    return table[rounded.astype(np.intp, copy=False)]
