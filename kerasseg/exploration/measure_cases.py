"""Raw cases -> their statistics, in parallel processes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from kerasseg.config import Experiment
from kerasseg.datasets.read_case import read_case
from kerasseg.datasets.source import CaseSource
from kerasseg.errors import UserError
from kerasseg.exploration.case_statistics import CaseStatistics, measure
from kerasseg.in_processes import in_processes
from kerasseg.runtime import usable_cores
from kerasseg.settings.data import DataSettings


@dataclass(frozen=True)
class LeftOut:
    """A case that could not be read, and why."""

    case_id: str
    patient_id: str
    reason: str


def measure_cases(
    experiment: Experiment, sources: Sequence[CaseSource]
) -> Iterator[CaseStatistics | LeftOut]:
    """Statistics in order of `sources`; each process holds one case in memory.

    Raises `UserError` when no process can be started at all.
    """
    workers = min(experiment.records.workers or usable_cores(), len(sources))
    yield from in_processes(partial(_measure, experiment.data), sources, workers, _died)


def _measure(settings: DataSettings, source: CaseSource) -> CaseStatistics | LeftOut:
    try:
        case = read_case(source, settings)
    except UserError as error:
        return LeftOut(source.case_id, source.patient_id, str(error))
    except Exception as error:
        # A file that our readers did not expect must not hide the other cases.
        return LeftOut(source.case_id, source.patient_id, f"{type(error).__name__}: {error}")
    return measure(case)


def _died(source: CaseSource) -> LeftOut:
    reason = (
        "the process that read it was killed, most likely because memory ran out: try again with "
        "records.workers=1"
    )
    return LeftOut(source.case_id, source.patient_id, reason)
