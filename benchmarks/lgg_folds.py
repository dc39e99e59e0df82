"""The five folds of the 53 LGG patients, docs/results/lgg_folds.csv, and the split of each.

`python -m benchmarks.lgg_folds FOLD split.csv` writes the split that tests on one fold, for a
config with split.method=file and split.file=split.csv: the fold is its test, and the patients whose
column `validates` names the fold choose (epochs, thresholds, recipes). They lie in the other folds,
so that nothing is chosen by a patient who is scored. `python -m benchmarks.lgg_folds draw DATA`
draws the file again from the patients in a folder; it has been drawn once, and stays as it is.
"""

import csv
import random
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

FOLDS_FILE = Path(__file__).parents[1] / "docs" / "results" / "lgg_folds.csv"
FOLDS = 5
CHOOSING = 8
"""Patients that choose for each fold."""


class Patient(NamedTuple):
    """A row of the file.

    Attributes:
        fold: The fold that tests on the patient.
        validates: The fold that the patient chooses for; None where it trains for all others.
        voxels: Voxels of tumour.
        copied: Whether a sequence is a copy of another, as `kerasseg verify` reports.
    """

    fold: int
    validates: int | None
    voxels: int
    copied: bool


def read_folds(path: Path = FOLDS_FILE) -> dict[str, Patient]:
    """Return case id -> row."""
    with path.open(newline="", encoding="utf-8") as file:
        return {
            row["case_id"]: Patient(
                int(row["fold"]),
                int(row["validates"]) if row["validates"] else None,
                int(row["voxels"]),
                row["copied"] == "1",
            )
            for row in csv.DictReader(file)
        }


def sides_of(patients: Mapping[str, Patient], fold: int) -> dict[str, str]:
    """Return case id -> train, validation or test, of the split that tests on a fold."""
    sides = {}
    for case_id, patient in patients.items():
        choosing = "validation" if patient.validates == fold else "train"
        sides[case_id] = "test" if patient.fold == fold else choosing
    return sides


def sides_of_sixth(patients: Mapping[str, Patient], fold: int) -> dict[str, str]:
    """Return the split of one of five networks that are scored as one, as an ensemble.

    All five test on the same sixth of the patients. Each of the other sixths validates for one of
    them and trains for four. Tumours of all sizes, and copied sequences, are spread over the
    sixths.
    """
    by_size = sorted(patients, key=lambda c: (not patients[c].copied, patients[c].voxels))
    sides = {0: "test", fold + 1: "validation"}
    return {c: sides.get(i % (FOLDS + 1), "train") for i, c in enumerate(by_size)}


def write_split(sides: Mapping[str, str], path: Path) -> None:
    """Write a split as the CSV that `split.file` takes."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("case_id", "split"), *sides.items()])


def draw_folds(found: Mapping[str, tuple[int, bool]], seed: int = 0) -> dict[str, Patient]:
    """Deal patients into folds of alike tumours, with those of copied sequences spread over them.

    Args:
        found: Case id -> voxels of tumour, and whether a sequence is a copy.
        seed: Seed of the draw.

    Returns:
        Case id -> row, sorted by case id.
    """
    rng = random.Random(seed)
    by_size = sorted(found, key=lambda case_id: found[case_id][0])
    copied_first = sorted(by_size, key=lambda case_id: not found[case_id][1])
    fold_of: dict[str, int] = {}
    for start in range(0, len(copied_first), FOLDS):
        places = rng.sample(range(FOLDS), FOLDS)
        fold_of.update(zip(copied_first[start : start + FOLDS], places, strict=False))
    validates: dict[str, int] = {}
    for fold in range(FOLDS):
        free = [c for c in by_size if fold_of[c] != fold and c not in validates]
        edges = [i * len(free) // CHOOSING for i in range(CHOOSING + 1)]
        validates.update((rng.choice(free[start:stop]), fold) for start, stop in pairwise(edges))
    return {c: Patient(fold_of[c], validates.get(c), *found[c]) for c in sorted(found)}


def _look_at(root: Path) -> dict[str, tuple[int, bool]]:
    from kerasseg.config.data import DataSettings
    from kerasseg.datasets.checks import findings_of
    from kerasseg.datasets.lgg import discover

    found = {}
    for source in discover(DataSettings(layout="lgg", root=root)):
        case = source.load()
        copied = any(finding.check == "copied modality" for finding in findings_of(case))
        assert case.label is not None
        found[case.case_id] = (int(np.count_nonzero(case.label)), copied)
    return found


def main(first: str, second: Path) -> None:
    """Write the split of a fold, or draw the file of the folds."""
    if first != "draw":
        write_split(sides_of(read_folds(), int(first)), second)
        return
    with FOLDS_FILE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("case_id", *Patient._fields))
        for case_id, patient in draw_folds(_look_at(second)).items():
            writer.writerow((case_id, *patient[:-1], int(patient.copied)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
