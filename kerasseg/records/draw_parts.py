"""Dealing patients to the parts of a split, at random or by the size of their tumours."""

import random
from collections.abc import Iterable, Mapping
from itertools import pairwise

from kerasseg.errors import UserError
from kerasseg.records.parts import Parts, fold_name
from kerasseg.settings.store import SplitSettings


def draw_parts(
    patients: Mapping[str, str], volumes: Mapping[str, float], settings: SplitSettings
) -> Parts:
    """Split case id -> patient id into sides or folds so that no patient stands in two parts.

    ratio: each side with a share above 0 gets at least one patient while there are enough;
    training comes first, then validation, then test. kfold: the test share is drawn first, and the
    folds' sizes differ by one patient at most.
    `volumes`, patient id -> mL of tumour, are looked at with `split.stratify` only: patients are
    then sorted by them, and each run of neighbours is spread over the parts.
    The same arguments give the same parts. Raises `UserError` for fewer patients than folds.
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
    return {**{fold_name(i): members for i, members in enumerate(dealt)}, "test": test}


def _count(share: float, patients: int) -> int:
    return max(round(share * patients), 1) if share > 0 else 0


def _take(order: list[str], count: int, rng: random.Random | None) -> tuple[list[str], list[str]]:
    """`count` patients and the rest: the first ones, or with `rng` one of each equal block."""
    if rng is None:
        return order[:count], order[count:]
    edges = [i * len(order) // count for i in range(count + 1)] if count else []
    taken = [rng.choice(order[start:stop]) for start, stop in pairwise(edges)]
    gone = set(taken)
    return taken, [patient for patient in order if patient not in gone]


def _cases_of(members: Iterable[str], patients: Mapping[str, str]) -> list[str]:
    chosen = set(members)
    return sorted(case for case, patient in patients.items() if patient in chosen)
