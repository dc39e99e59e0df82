"""A dataset's own label ids -> canonical ids."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from kerasseg import anatomy
from kerasseg.errors import UserError

_INTEGER_TOLERANCE = 1e-3
"""Label maps stored as float with a slope come back as 0.99999."""

_NAMES = (
    (re.compile(r"background|^0$"), anatomy.BACKGROUND),
    (re.compile(r"o?edema|\bed\b|flair|snfh"), anatomy.ED),
    (re.compile(r"necro|non[- _]?enhanc|\bncr\b|\bnetc?\b"), anatomy.NCR),
    (re.compile(r"enhanc|\bet\b"), anatomy.ET),
)
"""Names that dataset.json files give to labels; the first that fits counts, so that a
non-enhancing tumour is not taken for an enhancing one."""


def canonical_labels(values: np.ndarray, label_map: Mapping[int, int], where: Any) -> np.ndarray:
    """Map a label array of any integer or float dtype to canonical uint8 ids of the same shape.

    `where` is the file, for the message. Raises `UserError` for a value that is no integer, one
    that `label_map` does not know, or 3 and 4 in one file under the default map.
    """
    labelled = values != 0
    inside = values[labelled]  # a few percent of the volume
    if not np.isfinite(inside).all():
        raise UserError(f"{where}: a segmentation holds NaN or infinite values: repair the file.")
    rounded = np.rint(inside) if inside.dtype.kind == "f" else inside
    if rounded is not inside and not np.allclose(inside, rounded, atol=_INTEGER_TOLERANCE):
        raise UserError(
            f"{where}: a segmentation must hold whole numbers, found values such as "
            f"{float(inside[np.abs(inside - rounded) > _INTEGER_TOLERANCE][0]):.4g}: "
            "was it resampled with interpolation? Use the original file."
        )
    found, places = np.unique(rounded, return_inverse=True)
    ids = [int(value) for value in found] + ([0] if inside.size < values.size else [])
    unknown = sorted({value for value in ids if value not in label_map})
    if unknown:
        raise UserError(
            f"{where}: label value(s) {unknown} are unknown, known are {sorted(label_map)}: "
            "remap the file, or name them in data.label_map."
        )
    if label_map == anatomy.BRATS_LABEL_MAP and {3, 4} <= set(ids):
        raise UserError(
            f"{where}: labels 3 and 4 both occur. Up to BraTS 2021 enhancing tumour is 4, from "
            "2023 on it is 3, and in BraTS 2024 4 is a resection cavity: say what each id is in "
            "data.label_map."
        )
    result = np.full(values.shape, label_map.get(0, 0), np.uint8)
    table = np.array([label_map[int(value)] for value in found], np.uint8)
    if table.size:
        result[labelled] = table[places.reshape(-1)]
    return result


def label_map_of_names(names: Mapping[int, str], where: Any) -> dict[int, int]:
    """The label map that a dataset.json implies: its ids -> canonical ids, by their names.

    Raises `UserError` for a name that is none of the three sub-regions.
    """
    result = {}
    for label, name in names.items():
        fits = [class_id for words, class_id in _NAMES if words.search(name.lower())]
        if not fits:
            raise UserError(
                f"{where}: label {label} is called {name!r}, which is none of background, edema, "
                "necrotic or non-enhancing, enhancing: say what each id is in data.label_map."
            )
        result[label] = fits[0]
    return {anatomy.BACKGROUND: anatomy.BACKGROUND, **result}
