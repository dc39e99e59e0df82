"""Reading a case: load it, check it, bring it to the spacing that the experiment asks for."""

from kerasseg.datasets.case import Case
from kerasseg.datasets.findings import check_case
from kerasseg.datasets.resample import resample_case
from kerasseg.datasets.source import CaseSource
from kerasseg.settings.data import DataSettings


def read_case(source: CaseSource, settings: DataSettings) -> Case:
    """The case as the rest of the house takes it.

    Raises `UserError` for a file that cannot be read and for anything that
    `findings.findings_of` calls an error.
    """
    return to_spacing(check_case(source.load()), settings)


def to_spacing(case: Case, settings: DataSettings) -> Case:
    """The case resampled to `data.spacing`, or as it is where none is set."""
    if settings.spacing is None:
        return case
    order = 3 if settings.interpolation == "cubic" else 1
    return resample_case(case, settings.spacing, order)
