"""The ids that a written label has."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from kerasseg import anatomy
from kerasseg.datasets.inputs.input import inverse
from kerasseg.errors import UserError
from kerasseg.settings.data import DataSettings

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
