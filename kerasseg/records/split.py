"""Who trains, who validates, who tests: by patient, written once beside the store."""

import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kerasseg.settings.store import SplitSettings
from kerasseg.errors import UserError, storage_error
from kerasseg.records.store import RecordStore
from kerasseg.write_aside import write_aside


@dataclass(frozen=True)
class Split:
    """Case ids of each side. `overfit_check`: the same cases train and validate."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    overfit_check: bool = False

    def as_json(self) -> dict[str, Any]:
        """What is written to a file."""
        return json.loads(json.dumps(asdict(self)))

    def write(self, path: Path, setting: str) -> None:
        """Write as JSON, in one step; `setting` is what would move it elsewhere."""
        with write_aside(path, setting) as temporary:
            temporary.write_text(json.dumps(self.as_json(), indent=1) + "\n", encoding="utf-8")


def open_split(store: RecordStore, settings: SplitSettings) -> Split:
    """The split of these settings: read from beside the store, or made and written there.

    One patient alone cannot be split: then, as with `split.overfit_check`, the same cases train
    and validate, and the split says so. Raises `UserError` when a written split names other
    cases than the store holds.
    """
    patients = {row.case_id: row.patient_id for row in store.manifest.cases}
    if settings.overfit_check or len(set(patients.values())) == 1:
        cases = tuple(patients)
        return Split(cases, cases, (), overfit_check=True)
    path = (
        store.root
        / "splits"
        / (f"seed-{settings.seed}_validation-{settings.validation:g}_test-{settings.test:g}.json")
    )
    if path.exists():
        return _read(path, patients)
    split = make_split(patients, settings)
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise storage_error(error, f"Making {path.parent}", "records.root") from error
    split.write(path, "records.root")
    return split


def make_split(patients: Mapping[str, str], settings: SplitSettings) -> Split:
    """Split case id -> patient id so that no patient stands on two sides.

    Each side with a share above 0 gets at least one patient while there are enough; training
    comes first, then validation, then test.
    """
    order = sorted(set(patients.values()))
    random.Random(settings.seed).shuffle(order)
    free = len(order) - 1
    counts = []
    for share in (settings.validation, settings.test):
        count = min(max(round(share * len(order)), 1), free) if share > 0 else 0
        counts.append(count)
        free -= count
    validation = set(order[: counts[0]])
    test = set(order[counts[0] : counts[0] + counts[1]])

    def of(chosen: set[str]) -> tuple[str, ...]:
        return tuple(sorted(case for case, patient in patients.items() if patient in chosen))

    return Split(of(set(order) - validation - test), of(validation), of(test))


def _read(path: Path, patients: Mapping[str, str]) -> Split:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        split = Split(tuple(values["train"]), tuple(values["validation"]), tuple(values["test"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is no split file ({error}): delete it to make it anew.") from None
    for side in ("train", "validation"):
        if not getattr(split, side):
            raise UserError(f"{path}: {side} is empty: put at least one case there.")
    listed = [*split.train, *split.validation, *split.test]
    if sorted(listed) != sorted(patients):
        missing, unknown = set(patients) - set(listed), set(listed) - set(patients)
        raise UserError(
            f"{path}: does not match the store: {len(missing)} case(s) of the store are in no "
            f"part, {len(unknown)} named case(s) are not in the store, "
            f"{len(listed) - len(set(listed))} stand twice: delete the file to make it anew."
        )
    sides: dict[str, str] = {}
    for side in ("train", "validation", "test"):
        for case in getattr(split, side):
            if sides.setdefault(patients[case], side) != side:
                raise UserError(
                    f"{path}: patient {patients[case]} stands in {sides[patients[case]]} and in "
                    f"{side}, so the score would be false: put all cases of a patient on one side."
                )
    return split
