"""Patients that a split has torn apart, or might."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from kerasseg.config import Experiment
from kerasseg.datasets.discovery import knows_patients
from kerasseg.datasets.findings import Finding
from kerasseg.errors import UserError
from kerasseg.records.parts import Parts, patients_in_two_parts, read_parts
from kerasseg.records.split import FOLDER
from kerasseg.records.split_csv import read_split_csv


def patient_findings(experiment: Experiment, patients: Mapping[str, str]) -> list[Finding]:
    """Check `split.file` and the splits beside an existing store against case id -> patient id."""
    findings = []
    if not knows_patients(experiment.data):
        message = (
            f"data.layout={experiment.data.layout} does not say which pictures are of one "
            "patient, so each counts as a patient of its own: neighbouring slices of one tumour "
            "may stand in training and in test, and scores come out too high; set "
            "data.patient_pattern or data.patient_csv"
        )
        findings.append(Finding("warning", "patients", message))
    for path in _split_files(experiment):
        findings += _of_split(path, patients, csv=path == experiment.split.file)
    return findings


def _split_files(experiment: Experiment) -> Iterator[Path]:
    if experiment.split.file is not None:
        yield experiment.split.file
    yield from sorted((experiment.store_root / FOLDER).glob("*.json"))


def _of_split(path: Path, patients: Mapping[str, str], *, csv: bool) -> Iterator[Finding]:
    try:
        parts: Parts = read_split_csv(path, patients) if csv else read_parts(path)
    except UserError as error:
        yield Finding("error", "split", str(error))
        return
    for patient, first, second in patients_in_two_parts(parts, patients):
        cases = [c for part in (first, second) for c in parts[part] if patients.get(c) == patient]
        message = (
            f"{path}: patient {patient} stands in {first} and in {second} ({', '.join(cases)}), so "
            "the score would be false: put all cases of a patient on one side, or delete the file "
            "to draw anew"
        )
        yield Finding("error", "patient in two splits", message)
