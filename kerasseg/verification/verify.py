"""Verifying a data set: each case for itself, then all together."""

from kerasseg.config import Experiment
from kerasseg.datasets.discovery import discover
from kerasseg.in_processes import in_processes
from kerasseg.progress import track
from kerasseg.runtime import usable_cores
from kerasseg.verification.compare_cases import compare_cases
from kerasseg.verification.inspect_case import died, inspect_case
from kerasseg.verification.patients import patient_findings
from kerasseg.verification.verification import Verification


def verify(experiment: Experiment) -> Verification:
    """Read every case of `experiment.data` and collect what is wrong, without stopping at it.

    Raises `UserError` only when there is nothing to verify: no folder, or no case in it.
    """
    sources = discover(experiment.data)
    workers = min(experiment.records.workers or usable_cores(), len(sources))
    reports = in_processes(inspect_case, sources, workers, died)
    cases = list(track(reports, len(sources), "Verifying cases"))
    findings = compare_cases(cases, experiment.data)
    findings += patient_findings(experiment, {case.case_id: case.patient_id for case in cases})
    return Verification(experiment.data.layout, experiment.data.root, cases, findings)
