"""Files of splits: reading our JSON and the user's CSV, and checking their parts."""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from kerasseg.errors import UserError
from kerasseg.files import read_csv_rows

Parts = dict[str, list[str]]
"""train, validation and test; or test and `fold_name` of each fold. Only test may be empty."""

SIDES = ("train", "validation", "test")


def fold_name(fold: int) -> str:
    """Return the name of a fold among the parts."""
    return f"fold {fold}"


def read_parts(path: Path) -> Parts:
    """Read a split file, of sides or of folds. Raises `UserError` if it cannot be understood."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if "folds" in values:
            folds = {fold_name(i): list(cases) for i, cases in enumerate(values["folds"])}
            return {**folds, "test": list(values["test"])}
        return {side: list(values[side]) for side in SIDES}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is no split file ({error}): delete it to make it anew.") from None


def check_parts(path: Path, parts: Parts, patients: Mapping[str, str], remedy: str) -> None:
    """Check that the parts hold every case exactly once, and every patient in one part.

    Raises `UserError` if a part has no case, the parts name other cases than the store or one
    twice, or a patient stands in two parts.

    Args:
        path: The file of the parts, which messages name.
        parts: Name of a part -> its case ids.
        patients: Case id -> patient id of the store.
        remedy: What to do about a file that does not match the store.
    """
    for part, cases in parts.items():
        if part != "test" and not cases:
            raise UserError(f"{path}: {part} is empty: put at least one case there.")
    listed = [case for cases in parts.values() for case in cases]
    if sorted(listed) != sorted(patients):
        missing, unknown = set(patients) - set(listed), set(listed) - set(patients)
        raise UserError(
            f"{path}: does not match the store: {len(missing)} case(s) of the store are in no "
            f"part, {len(unknown)} named case(s) are not in the store, "
            f"{len(listed) - len(set(listed))} stand twice: {remedy}."
        )
    for patient, first, second in patients_in_two_parts(parts, patients):
        raise UserError(
            f"{path}: patient {patient} stands in {first} and in {second}, so the score would be "
            "false: put all cases of a patient on one side."
        )


def patients_in_two_parts(
    parts: Parts, patients: Mapping[str, str]
) -> Iterator[tuple[str, str, str]]:
    """Yield each patient whose cases stand in two parts, with the first two of these parts.

    Cases that `patients` does not know are passed over.
    """
    places: dict[str, list[str]] = {}
    for part, cases in parts.items():
        for patient in {patients[case] for case in cases if case in patients}:
            places.setdefault(patient, []).append(part)
    for patient in sorted(places):
        if len(places[patient]) > 1:
            yield patient, places[patient][0], places[patient][1]


_SYNONYMS = {"val": "validation", "valid": "validation"}


def read_split_csv(
    path: Path, patients: Mapping[str, str], left_out: Collection[str] = ()
) -> Parts:
    """Read the user's CSV: column `case_id` or `patient_id`, and column `split` or `fold`.

    A file with both name columns goes by `case_id`. `split` is train, validation (or val, valid) or
    test; `fold` is a number from 0, or test. Returns the parts. That no patient stands in two of
    them is for `check_parts` to see. Raises `UserError` if the file cannot be read or lacks a
    column; a row (the message has its number) has an unknown part or name, or contradicts an
    earlier row; or a case has no row.

    Args:
        path: The CSV file.
        patients: Case id -> patient id of the store.
        left_out: Names of cases and patients that the store left out; their rows are passed over.
    """
    rows = read_csv_rows(path, "split.file", lower=True)
    found = list(rows[0][1]) if rows else []
    name_column = next((c for c in ("case_id", "patient_id") if c in found), None)
    part_columns = [c for c in ("split", "fold") if c in found]
    if name_column is None or len(part_columns) != 1:
        raise UserError(
            f"split.file: {path}: expected a column case_id or patient_id and one column split or "
            f"fold, found {', '.join(found) or 'nothing'}."
        )
    cases: dict[str, list[str]] = {}
    for case_id, patient_id in patients.items():
        cases.setdefault(case_id if name_column == "case_id" else patient_id, []).append(case_id)
    placed: dict[str, str] = {}
    for number, row in rows:
        name, where = row[name_column], f"split.file: {path}, row {number}"
        part = _part(row[part_columns[0]], part_columns[0], where)
        if name not in cases:
            if name in left_out:
                continue
            raise UserError(
                f"{where}: {name_column} {name!r} is not in the store, whose first is "
                f"{next(iter(cases))!r}: correct or remove the row."
            )
        if placed.setdefault(name, part) != part:
            raise UserError(f"{where}: {name} stands in {part}, but above in {placed[name]}.")
    missing = [name for name in cases if name not in placed]
    if missing:
        raise UserError(
            f"split.file: {path}: {len(missing)} {name_column}(s) of the store have no row, the "
            f"first {missing[0]}: add them, or move their scans out of data.root and run kerasseg "
            "convert."
        )
    parts: Parts = {part: [] for part in _part_names(part_columns[0], placed)}
    for name, part in placed.items():
        parts[part] += cases[name]
    return parts


def _part_names(column: str, placed: Mapping[str, str]) -> list[str]:
    if column == "split":
        return list(SIDES)
    folds = set(placed.values()) - {"test"}
    return [*sorted(folds, key=lambda name: (len(name), name)), "test"]


def _part(word: str, column: str, where: str) -> str:
    lower = word.lower()
    part = _SYNONYMS.get(lower, lower)
    if column == "split" and part in SIDES:
        return part
    if column == "fold" and part == "test":
        return part
    if column == "fold" and part.isdecimal():
        return fold_name(int(part))
    allowed = "train, validation or test" if column == "split" else "0, 1, … or test"
    raise UserError(f"{where}: {column} is {word!r}, expected {allowed}.")
