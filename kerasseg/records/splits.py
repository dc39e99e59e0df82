"""Splitting patients into training, validation and test; a split is written once into the store."""

import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

from kerasseg.config.pipeline import SplitSettings
from kerasseg.errors import UserError
from kerasseg.files import make_folder, write_json
from kerasseg.records import split_files
from kerasseg.records.manifest import CaseRow
from kerasseg.records.store import RecordStore


def draw_parts(
    patients: Mapping[str, str], volumes: Mapping[str, float], settings: SplitSettings
) -> split_files.Parts:
    """Split cases into sides or folds so that no patient stands in two parts.

    ratio: each side with a share above 0 gets at least one patient while there are enough;
    training comes first, then validation, then test. kfold: the test share is drawn first, and the
    folds' sizes differ by one patient at most. With `split.stratify` patients are sorted by the
    size of their tumour, and each run of neighbours is spread over the parts. The same arguments
    give the same parts.

    Raises `UserError` if there are fewer patients than folds.

    Args:
        patients: Case id -> patient id.
        volumes: Patient id -> mL of tumour; needed with `split.stratify` only.
    """
    rng = random.Random(settings.seed)
    order = sorted(set(patients.values()))
    stratified = settings.stratify == "tumour_volume"
    if stratified:
        order.sort(key=lambda patient: volumes[patient])
    else:
        rng.shuffle(order)
    if settings.method == "kfold":
        chosen = _folds(order, settings, rng if stratified else None)
    else:
        chosen = _sides(order, settings, rng if stratified else None)
    return {part: _cases_of(members, patients) for part, members in chosen.items()}


def _sides(
    order: list[str], settings: SplitSettings, rng: random.Random | None
) -> dict[str, list[str]]:
    free = len(order) - 1
    sides: dict[str, list[str]] = {}
    rest = order
    patients = len(order)
    for side, share in (("validation", settings.validation), ("test", settings.test)):
        count = min(_count(share, patients), free)
        free -= count
        sides[side], rest = _take(rest, count, rng)
    return {"train": rest, **sides}


def _folds(
    order: list[str], settings: SplitSettings, rng: random.Random | None
) -> dict[str, list[str]]:
    folds, held_out = settings.folds, _count(settings.test, len(order))
    left = len(order) - held_out
    if left < folds:
        ways = [f"set split.folds={left} or fewer"] if left >= 2 else []
        ways += ["set split.test=0"] if held_out and len(order) >= 2 else []
        raise UserError(
            f"split.folds={folds} needs {folds} patients, but of the store's {len(order)} "
            f"split.test={settings.test:g} leaves {left}: {', or '.join([*ways, 'add cases'])}."
        )
    test, rest = _take(order, held_out, rng)
    dealt: list[list[str]] = [[] for _ in range(folds)]
    for start in range(0, left, folds):
        places = list(range(folds))
        if rng:
            rng.shuffle(places)
        for patient, place in zip(rest[start : start + folds], places, strict=False):
            dealt[place].append(patient)
    return {**{split_files.fold_name(i): members for i, members in enumerate(dealt)}, "test": test}


def _count(share: float, patients: int) -> int:
    return max(round(share * patients), 1) if share > 0 else 0


def _take(order: list[str], count: int, rng: random.Random | None) -> tuple[list[str], list[str]]:
    """Take `count` patients, the first ones or with `rng` one of each equal block; return the rest
    too."""
    if rng is None:
        return order[:count], order[count:]
    edges = [i * len(order) // count for i in range(count + 1)] if count else []
    taken = [rng.choice(order[start:stop]) for start, stop in pairwise(edges)]
    gone = set(taken)
    return taken, [patient for patient in order if patient not in gone]


def _cases_of(members: Iterable[str], patients: Mapping[str, str]) -> list[str]:
    chosen = set(members)
    return sorted(case for case, patient in patients.items() if patient in chosen)


FOLDER = "splits"
"""Folder of the split files in that of the store."""


@dataclass(frozen=True)
class Split:
    """The case ids of each side; with `overfit_check` the same cases train and validate."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    overfit_check: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the split as it is written to a file."""
        return json.loads(json.dumps(asdict(self)))

    def write(self, path: Path, setting: str) -> None:
        """Write the split as JSON; `setting` is the setting that would move the file elsewhere."""
        write_json(path, self.as_json(), setting, indent=1)


def open_split(store: RecordStore, settings: SplitSettings) -> Split:
    """Return the split of these settings, which is read from a file or made and written once.

    The file is `split.file`, or one in the store. One patient alone cannot be split: then, as with
    `split.overfit_check`, the same cases train and validate, and the split says so. Raises
    `UserError` if a written split names other cases than the store holds, or there are fewer
    patients than folds.
    """
    rows = store.manifest.cases
    patients = {row.case_id: row.patient_id for row in rows}
    if settings.overfit_check or len(set(patients.values())) == 1:
        cases = tuple(patients)
        return Split(cases, cases, (), overfit_check=True)
    if settings.file is not None:
        skipped = store.manifest.skipped
        left_out = {name for case in skipped for name in (case.case_id, case.patient_id)}
        parts = split_files.read_split_csv(settings.file, patients, left_out)
        split = split_of(settings.file, parts, settings)
        split_files.check_parts(settings.file, parts, patients, "correct the file")
        return split
    path = store.root / FOLDER / _file_name(settings)
    if not path.exists():
        make_folder(path.parent, "records.root")
        parts = draw_parts(patients, _tumour_volumes(rows), settings)
        write_json(path, _as_json(path, parts, settings), "records.root", indent=1)
    parts = split_files.read_parts(path)
    split_files.check_parts(path, parts, patients, "delete the file to make it anew")
    return split_of(path, parts, settings)


def split_of(path: Path, parts: split_files.Parts, settings: SplitSettings) -> Split:
    """Return the sides of `parts`: fold number `split.fold` validates and the others train.

    Raises `UserError` if the fold does not occur, or the parts are sides, which have no folds. The
    message names `path`.
    """
    if "train" in parts:
        if settings.method == "file" and settings.fold:
            raise UserError(
                f"split.fold={settings.fold}: {path} has a column split, which tells no folds "
                "apart: give it a column fold instead, or leave split.fold out."
            )
        train, validation, test = (tuple(sorted(parts[side])) for side in split_files.SIDES)
        return Split(train, validation, test)
    chosen = split_files.fold_name(settings.fold)
    if chosen not in parts:
        folds = ", ".join(part.removeprefix("fold ") for part in parts if part != "test")
        raise UserError(
            f"split.fold={settings.fold} does not occur in {path}, whose folds are {folds}."
        )
    others = [part for part in parts if part not in (chosen, "test")]
    if not others:
        raise UserError(
            f"{path}: {chosen} is the only one, so nobody trains: there must be two or more."
        )
    return Split(
        tuple(sorted(case for part in others for case in parts[part])),
        tuple(sorted(parts[chosen])),
        tuple(sorted(parts["test"])),
    )


def _file_name(settings: SplitSettings) -> str:
    parts = [f"seed-{settings.seed}"]
    if settings.method == "kfold":
        parts.insert(0, f"kfold-{settings.folds}")
    else:
        parts.append(f"validation-{settings.validation:g}")
    parts.append(f"test-{settings.test:g}")
    parts += ["stratified"] if settings.stratify != "none" else []
    return f"{'_'.join(parts)}.json"


def _tumour_volumes(rows: Iterable[CaseRow]) -> Mapping[str, float]:
    """Return patient id -> mL of tumour, in the scan of the patient that has most of it."""
    volumes: dict[str, float] = {}
    for row in rows:
        volume = sum(row.voxels.values()) * prod(row.spacing) / 1000
        volumes[row.patient_id] = max(volume, volumes.get(row.patient_id, 0.0))
    return volumes


def _as_json(path: Path, parts: split_files.Parts, settings: SplitSettings) -> dict[str, Any]:
    if settings.method == "kfold":
        folds = [parts[split_files.fold_name(number)] for number in range(settings.folds)]
        return {"test": parts["test"], "folds": folds}
    return split_of(path, parts, settings).as_json()
