"""The ids that a written label has.

The ids of labels that the files of a case tell.

Canonical labels -> those of a data set.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from kerasseg import anatomy
from kerasseg.config.data import DataSettings
from kerasseg.datasets.case import inverse
from kerasseg.datasets.dataset_json import DatasetJson, nearest_dataset_json
from kerasseg.errors import UserError

_BRATS_2023 = re.compile(r"[_-](t1n|t1c|t2w|t2f)\.nii", re.IGNORECASE)
_IDS_2023 = {i: i for i in anatomy.LABELS}
_ANY_MAP = {i: i for i in anatomy.LABELS}


def told_ids(files: Sequence[Path], data: DataSettings) -> Mapping[int, int] | None:
    """Canonical id -> the data set's own, of a case of `data.layout` with these files: by the names
    of BraTS 2023, or by the dataset.json near them. None where they do not tell.

    The files need not be there any more.
    """
    if data.layout == "brats_nifti":
        return ids_of_names(files)
    if data.layout in ("msd", "nnunet") and files:
        return description_beside(files[0].parent, data)[1]
    return None


def ids_of_names(files: Sequence[Path]) -> Mapping[int, int] | None:
    """Of files that are named as in BraTS 2023; None of others."""
    return _IDS_2023 if any(_BRATS_2023.search(path.name) for path in files) else None


def description_beside(
    folder: Path, data: DataSettings
) -> tuple[DatasetJson | None, Mapping[int, int] | None]:
    """The dataset.json near a folder, and its label ids if they are understood."""
    try:
        found = nearest_dataset_json(folder, data.model_copy(update={"label_map": None}))
    except UserError:
        # Labels are not needed here; if it is something else, it is said now.
        return nearest_dataset_json(folder, data.model_copy(update={"label_map": _ANY_MAP})), None
    return found, inverse(found.label_map) if found else None


CONVENTIONS: Final = MappingProxyType(
    {
        "brats": MappingProxyType({0: 0, anatomy.NCR: 1, anatomy.ED: 2, anatomy.ET: 4}),
        "brats23": MappingProxyType({0: 0, anatomy.NCR: 1, anatomy.ED: 2, anatomy.ET: 3}),
        "msd": MappingProxyType({0: 0, anatomy.ED: 1, anatomy.NCR: 2, anatomy.ET: 3}),
    }
)
"""Name -> canonical id -> the data set's own. BraTS up to 2021; from 2023 on, which are the
canonical ids; Task01 of the Medical Segmentation Decathlon."""

_OF_LAYOUT: Final = MappingProxyType({"phantom": "brats23", "nnunet": "brats23", "msd": "msd"})


def label_ids(
    convention: str | None,
    data: DataSettings,
    target: str,
    of_input: Mapping[int, int] | None,
) -> Mapping[int, int]:
    """Canonical id -> the id that is written.

    Tumour of any kind (target binary) is 1, or what `data.label_map` has for it. Otherwise the
    first of these that says anything: `convention`, a key of `CONVENTIONS`; the run's
    `data.label_map`; the input's own files (dataset.json, or BraTS 2023's names); the layout
    that the run was trained on, where nnU-Net's has canonical ids and all that is BraTS has 4 for
    enhancing tumour.

    Raises `UserError` for a `data.label_map` that lacks an id.
    """
    own = inverse(data.label_map) if data.label_map else None
    if target == "binary":
        named = data.classes == "tumour" and convention is None and own is not None
        return own if named and own is not None and {0, 1} <= set(own) else {0: 0, 1: 1}
    if convention is not None:
        return CONVENTIONS[convention]
    if own is not None:
        missing = [name for i, name in anatomy.LABELS.items() if i not in own]
        if missing:
            raise UserError(
                f"The run's data.label_map has no id for {', '.join(missing)}: say which ids to "
                f"write with --labels {'|'.join(CONVENTIONS)}."
            )
        return own
    return of_input or CONVENTIONS[_OF_LAYOUT.get(data.layout, "brats")]


def own_label(label: np.ndarray, ids: Mapping[int, int]) -> np.ndarray:
    """A label of canonical ids with a data set's own, `ids` canonical -> own; the smallest unsigned
    dtype that holds them."""
    table = np.zeros(max(ids) + 1, np.min_scalar_type(max(ids.values())))
    for canonical, own in ids.items():
        table[canonical] = own
    return table[label]
