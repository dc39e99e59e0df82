"""Raw cases -> their statistics, in parallel processes."""

import multiprocessing
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from kerasseg.config import Experiment
from kerasseg.datasets.read_case import read_case
from kerasseg.datasets.source import CaseSource
from kerasseg.errors import UserError
from kerasseg.exploration.case_statistics import CaseStatistics, measure
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

    Raises `UserError` when a process is killed, as the system does with one that takes all memory.
    """
    workers = min(experiment.records.workers or usable_cores(), len(sources))
    if workers <= 1:
        for source in sources:
            yield _measure(experiment.data, source)
        return
    # Spawned, not forked: a parent that has imported TensorFlow has threads a fork would lose.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_leave_interrupts) as pool:
        pending: deque[Future[CaseStatistics | LeftOut]] = deque()
        try:
            for source in sources:
                pending.append(pool.submit(_measure, experiment.data, source))
                if len(pending) > workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool:
            raise UserError(
                "A reading process ended at once: either memory ran out (try records.workers=1), "
                "or a script of yours that calls kerasseg lacks `if __name__ == '__main__':` "
                "around the call."
            ) from None
        finally:
            for future in pending:
                future.cancel()


def _leave_interrupts() -> None:
    """Ctrl-C is the parent's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _measure(settings: DataSettings, source: CaseSource) -> CaseStatistics | LeftOut:
    try:
        case = read_case(source, settings)
    except UserError as error:
        return LeftOut(source.case_id, source.patient_id, str(error))
    except Exception as error:
        # A file that our readers did not expect must not hide the other cases.
        return LeftOut(source.case_id, source.patient_id, f"{type(error).__name__}: {error}")
    return measure(case)
