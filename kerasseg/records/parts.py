"""The parts of a split: named lists of case ids, and what makes them useless."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from kerasseg.errors import UserError

Parts = dict[str, list[str]]
"""train, validation and test; or test and `fold_name` of each fold. Only test may be empty."""

SIDES = ("train", "validation", "test")


def fold_name(fold: int) -> str:
    """What a fold is called among the parts."""
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
    """Refuse parts that do not hold every case of case id -> patient id in exactly one place.

    Raises `UserError` that names `path`, for a part without cases, for parts that name other
    cases than `patients` or one twice (ending in `remedy`), and for a patient in two parts.
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
    """Each patient whose cases stand apart, with the first two parts that have them.

    Cases that `patients` does not know are passed over.
    """
    places: dict[str, list[str]] = {}
    for part, cases in parts.items():
        for patient in {patients[case] for case in cases if case in patients}:
            places.setdefault(patient, []).append(part)
    for patient in sorted(places):
        if len(places[patient]) > 1:
            yield patient, places[patient][0], places[patient][1]
