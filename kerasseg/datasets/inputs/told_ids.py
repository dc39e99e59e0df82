"""The ids of labels that the files of a case tell."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from kerasseg import anatomy
from kerasseg.datasets.dataset_json import DatasetJson, nearest_dataset_json
from kerasseg.datasets.inputs.input import inverse
from kerasseg.errors import UserError
from kerasseg.settings.data import DataSettings

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
