"""Label ids: a data set's own to canonical ones when read, and back when written."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from kerasseg import anatomy
from kerasseg.config.data import DataSettings
from kerasseg.datasets.case import inverse
from kerasseg.errors import UserError

CONVENTIONS: Final = MappingProxyType(
    {
        "brats": MappingProxyType({0: 0, anatomy.NCR: 1, anatomy.ED: 2, anatomy.ET: 4}),
        "brats23": MappingProxyType({0: 0, anatomy.NCR: 1, anatomy.ED: 2, anatomy.ET: 3}),
        "msd": MappingProxyType({0: 0, anatomy.ED: 1, anatomy.NCR: 2, anatomy.ET: 3}),
    }
)
"""Convention -> canonical id -> id in the file: brats is BraTS up to 2021; brats23 is BraTS from
2023 on, whose ids are the canonical ones; msd is Task01 of the Medical Segmentation Decathlon."""

_BRATS_2023 = re.compile(r"[_-](t1n|t1c|t2w|t2f)\.nii|^brats-[a-z]+-\d+-\d+", re.IGNORECASE)

_INTEGER_TOLERANCE = 1e-3
"""Label maps stored as float with a slope come back as 0.99999."""

_NOT_ENHANCING = (
    r"(?<![a-z])(?:non|not|un)[- _]?(?:contrast[- _]?|gd[- _]?|gadolinium[- _]?)?enhanc\w*"
)
_NAMES = (
    (re.compile(r"background|^0$"), anatomy.BACKGROUND),
    (re.compile(r"o?edema|\bed\b|flair|snfh"), anatomy.ED),
    (re.compile(rf"necro|{_NOT_ENHANCING}|\bncr\b|\bnetc?\b"), anatomy.NCR),
    (re.compile(r"enhanc|\bet\b"), anatomy.ET),
)
"""Names that dataset.json files give to labels. The first that fits counts, so that a
non-enhancing tumour is not taken for an enhancing one."""

_FOUR = (
    " From BraTS 2024 on 4 is the resection cavity (data.label_map={0: 0, 1: 1, 2: 2, 3: 3, 4: 0} "
    "makes it background), in the paediatric data edema."
)


def enhancing_id(values: np.ndarray, label: np.ndarray) -> int | None:
    """Return the id that enhancing tumour has in a file of `values`; None where there is none."""
    found = values[label == anatomy.ET]
    return round(float(found[0])) if found.size else None


def canonical_labels(
    values: np.ndarray, label_map: Mapping[int, int], where: Any, *, chosen: bool = False
) -> np.ndarray:
    """Map a label array of any integer or float dtype to canonical uint8 ids of the same shape.

    Args:
        label_map: The files' ids -> canonical ids.
        where: The file, for messages.
        chosen: The user chose the label map, so 3 and 4 may both be enhancing tumour.

    Raises:
        UserError: A value is no integer, or `label_map` does not know it, or 3 and 4 both occur.
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
            + (_FOUR * (4 in unknown and label_map == anatomy.BRATS_2023_LABEL_MAP))
        )
    if label_map == anatomy.BRATS_LABEL_MAP and {3, 4} <= set(ids) and not chosen:
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


def is_named_as_2023(files: Iterable[Path]) -> bool:
    """Return whether files, or their folders, have the names of BraTS 2023 and later, whose ids are
    ours."""
    return any(_BRATS_2023.search(p) for file in files for p in (file.name, file.parent.name))


def label_map_of_names(names: Mapping[int, str], where: Any) -> dict[int, int]:
    """Return the label map that a dataset.json implies by the names of its labels.

    Raises `UserError` for a name that is none of the three sub-regions.
    """
    result = {}
    for label, name in names.items():
        fits = [class_id for pattern, class_id in _NAMES if pattern.search(name.lower())]
        enhancing = anatomy.ET in fits and _NAMES[-1][0].search(
            re.sub(_NOT_ENHANCING, "", name.lower())
        )
        if not fits or (enhancing and len(fits) > 1):
            raise UserError(
                f"{where}: label {label} is called {name!r}, which is none of background, edema, "
                "necrotic or non-enhancing, enhancing: say what each id is in data.label_map."
            )
        result[label] = fits[0]
    return {anatomy.BACKGROUND: anatomy.BACKGROUND, **result}


def parse_ids(text: str) -> Mapping[int, int]:
    """Return the ids that `--labels` means, canonical id -> id in the file, 0 included.

    It is a key of `CONVENTIONS`, the ids of NCR, ED and ET such as `1,2,4`, or one number for
    tumour of any kind. Raises `UserError` for anything else.
    """
    if text in CONVENTIONS:
        return CONVENTIONS[text]
    parts = [part.strip() for part in text.split(",")]
    ids = [int(part) for part in parts if part.isdecimal()]
    if len(ids) != len(parts) or len(ids) not in (1, 3) or len({0, *ids}) <= len(ids):
        raise UserError(
            f"--labels {text}: expected {', '.join(CONVENTIONS)}, the ids of "
            f"{', '.join(anatomy.SUBREGIONS)} as three different numbers above 0, such as 1,2,4, "
            "or one number for tumour of any kind."
        )
    canonical = anatomy.SUBREGIONS.values() if len(ids) == 3 else (anatomy.TUMOUR,)
    return {0: 0, **dict(zip(canonical, ids, strict=True))}


def label_ids(
    convention: str | None, data: DataSettings, target: str, of_input: Mapping[int, int] | None
) -> Mapping[int, int]:
    """Choose the ids that a predicted label is written with.

    Tumour of any kind (target binary) is 1, or what `data.label_map` has for it. Otherwise the
    first of these counts that says anything: `convention`, the run's `data.label_map`, the input's
    own files, the layout that the run was trained on. Returns canonical id -> the id that is
    written. Raises `UserError` if `data.label_map` lacks an id, or one id is given for three
    classes.

    Args:
        convention: What `--labels` says, see `parse_ids`, or None.
        data: Section `data` of the run.
        target: What the run predicts, a key of `anatomy.TARGETS`.
        of_input: The ids that the input's files speak of (`read_label_ids`), or None.
    """
    own = inverse(data.label_map) if data.label_map else None
    asked = parse_ids(convention) if convention is not None else None
    if asked is not None and len(asked) == 2:  # tumour of any kind
        if target != "binary":
            raise UserError(
                f"--labels {convention}: one id is for tumour of any kind, but the run's "
                f"model.target={target} tells NCR, ED and ET apart: name three."
            )
        return asked
    if target == "binary":
        named = data.classes == "tumour" and convention is None and own is not None
        return own if named and own is not None and {0, 1} <= set(own) else {0: 0, 1: 1}
    if asked is not None:
        return asked
    if own is not None:
        missing = [name for i, name in anatomy.LABELS.items() if i not in own]
        if missing:
            raise UserError(
                f"The run's data.label_map has no id for {', '.join(missing)}: say which ids to "
                f"write with --labels {'|'.join(CONVENTIONS)}."
            )
        return own
    return of_input or CONVENTIONS[data.facts.convention]


def own_label(label: np.ndarray, ids: Mapping[int, int]) -> np.ndarray:
    """Replace canonical ids by a data set's own.

    Returns the own ids, in the smallest unsigned dtype that holds them.

    Args:
        label: Canonical ids, of any shape.
        ids: Canonical id -> own id.
    """
    table = np.zeros(max(ids) + 1, np.min_scalar_type(max(ids.values())))
    for canonical, own in ids.items():
        table[canonical] = own
    return table[label]
