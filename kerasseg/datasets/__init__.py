"""File layouts -> `Case`. One file per layout; `LAYOUTS` names them."""

from collections.abc import Callable, Sequence

from kerasseg.config import DataSettings
from kerasseg.datasets import brats_h5, brats_nifti, phantom
from kerasseg.datasets.source import CaseSource
from kerasseg.errors import UserError

LAYOUTS: dict[str, tuple[Callable[[DataSettings], Sequence[CaseSource]], str]] = {
    "phantom": (phantom.discover, "generated"),
    "brats_nifti": (brats_nifti.discover, "<case>_flair.nii.gz or <case>-t2f.nii.gz"),
    "brats_h5": (brats_h5.discover, "volume_<id>_slice_<s>.h5"),
}


def discover(settings: DataSettings) -> Sequence[CaseSource]:
    """All cases of `data.root` in `data.layout`, without opening them.

    Raises `UserError` when there is none, naming a layout that does fit if there is one.
    """
    find, pattern = LAYOUTS[settings.layout]
    sources = find(settings)
    if sources:
        return sources
    message = f"data.root: no {settings.layout} case ({pattern}) anywhere below {settings.root}"
    for other, (find_other, _) in LAYOUTS.items():
        if other not in (settings.layout, "phantom"):
            try:
                fits = len(find_other(settings)) > 0
            except UserError:
                fits = True  # the files are there, if not in order
            if fits:
                raise UserError(f"{message}, but there are {other} cases: set data.layout={other}.")
    raise UserError(f"{message}: set data.root to the folder that holds the cases.")
