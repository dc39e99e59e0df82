"""Cases that cannot be read do no harm to the others."""

import os
from dataclasses import dataclass

import pytest

from kerasseg.data_report.statistics import LeftOut, measure_cases
from kerasseg.datasets.case import BrokenSource, Case
from kerasseg.datasets.discovery import discover
from tests.conftest import phantom_experiment


@dataclass(frozen=True)
class Spoilt:
    """A case whose reader raises, or kills its process."""

    kill: bool
    case_id: str = "spoilt"
    patient_id: str = "p"
    files: tuple = ()

    def load(self) -> Case:
        if self.kill:
            os._exit(1)
        raise RuntimeError("no such thing")


@pytest.mark.parametrize("workers", [1, 2])
def test_cases_come_in_order_with_the_reasons_of_those_that_cannot(tmp_path, workers):
    experiment = phantom_experiment(tmp_path, f"records.workers={workers}")
    first, second, third = discover(experiment.data)[:3]
    broken = BrokenSource("broken", "b", (), "has no file")
    found = list(measure_cases(experiment, [first, broken, second, Spoilt(False), third]))
    assert [case.case_id for case in found] == [
        "phantom_0000",
        "broken",
        "phantom_0001",
        "spoilt",
        "phantom_0002",
    ]
    assert found[1] == LeftOut("broken", "b", "has no file")
    assert found[3] == LeftOut("spoilt", "p", "RuntimeError: no such thing")


def test_a_killed_process_costs_its_own_case_only(tmp_path):
    experiment = phantom_experiment(tmp_path, "records.workers=2")
    sources = [*discover(experiment.data)[:1], Spoilt(True), *discover(experiment.data)[1:2]]
    first, killed, second = measure_cases(experiment, sources)
    assert (first.case_id, second.case_id) == ("phantom_0000", "phantom_0001")
    assert isinstance(killed, LeftOut) and "killed, most likely because memory" in killed.reason
