"""Reading a case: load it, check it, bring it to the grid that the experiment asks for."""

from kerasseg.datasets.case import Case
from kerasseg.datasets.findings import check_case
from kerasseg.datasets.resample import resample_case
from kerasseg.datasets.resize import resize_case
from kerasseg.datasets.source import CaseSource
from kerasseg.settings.data import DataSettings


def read_case(source: CaseSource, settings: DataSettings) -> Case:
    """The case as the rest of the house takes it.

    Raises `UserError` for a file that cannot be read and for anything that
    `findings.findings_of` calls an error.
    """
    return to_grid(check_case(source.load()), settings)


def to_grid(case: Case, settings: DataSettings) -> Case:
    """The case with pictures of `data.size`, or voxels of `data.spacing`, or as it is."""
    if settings.size is not None:
        return resize_case(case, settings.size)
    if settings.spacing is None:
        return case
    order = 3 if settings.interpolation == "cubic" else 1
    return resample_case(case, settings.spacing, order)
