import random
from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasseg.config.pipeline import SplitSettings
from kerasseg.errors import UserError
from kerasseg.records.splits import draw_parts

STRATIFY = st.sampled_from(["none", "tumour_volume"])


def cohort(patients: int, seed: int) -> tuple[dict[str, str], dict[str, float]]:
    """Case id -> patient id, one to three cases each, and log-normal volumes: a few are huge."""
    rng = random.Random(seed)
    cases = {
        f"case{p:03d}_{i}": f"patient{p:03d}"
        for p in range(patients)
        for i in range(rng.choice([1, 1, 2, 3]))
    }
    return cases, {p: rng.lognormvariate(3, 1.2) for p in sorted(set(cases.values()))}


def check_partition(parts, patients):
    assert sorted(case for cases in parts.values() for case in cases) == sorted(patients)
    places = defaultdict(set)
    for part, cases in parts.items():
        for case in cases:
            places[patients[case]].add(part)
    assert all(len(found) == 1 for found in places.values())


def sizes(parts, patients) -> dict[str, int]:
    return {part: len({patients[case] for case in cases}) for part, cases in parts.items()}


@given(st.integers(2, 60), st.floats(0.05, 0.5), st.floats(0, 0.45), STRATIFY, st.integers(0, 99))
def test_sides_hold_every_case_once_whole_patients_and_their_shares(
    count, validation, test, stratify, seed
):
    patients, volumes = cohort(count, seed)
    settings = SplitSettings(validation=validation, test=test, stratify=stratify, seed=seed)
    parts = draw_parts(patients, volumes, settings)
    assert parts == draw_parts(dict(reversed(patients.items())), volumes, settings)
    check_partition(parts, patients)
    found = sizes(parts, patients)
    assert found["train"] >= 1 and found["validation"] >= 1
    if count >= 10:
        assert found["validation"] == max(round(validation * count), 1)
        assert found["test"] == (max(round(test * count), 1) if test else 0)


@given(st.integers(2, 60), st.integers(2, 10), st.floats(0, 0.5), STRATIFY, st.integers(0, 99))
def test_folds_hold_every_case_once_and_differ_by_one_patient(count, folds, test, stratify, seed):
    patients, volumes = cohort(count, seed)
    settings = SplitSettings(method="kfold", folds=folds, test=test, stratify=stratify, seed=seed)
    held_out = max(round(test * count), 1) if test else 0
    if count - held_out < folds:
        with pytest.raises(UserError, match=f"split.folds={folds} needs {folds} patients"):
            draw_parts(patients, volumes, settings)
        return
    parts = draw_parts(patients, volumes, settings)
    assert parts == draw_parts(dict(reversed(patients.items())), volumes, settings)
    assert list(parts) == [*(f"fold {i}" for i in range(folds)), "test"]
    check_partition(parts, patients)
    found = sizes(parts, patients)
    assert found.pop("test") == held_out
    assert max(found.values()) - min(found.values()) <= 1


def fold_means(parts, patients, volumes) -> list[float]:
    """Mean log-volume of each fold's patients."""
    return [
        float(np.mean([np.log(volumes[p]) for p in {patients[case] for case in cases}]))
        for part, cases in parts.items()
        if part != "test"
    ]


@given(st.integers(2, 8), st.integers(2, 12), st.integers(0, 999))
def test_stratified_means_cannot_be_further_apart_than_one_block(folds, blocks, seed):
    # Each block gives every fold one patient, and the blocks' ranges add up to the whole range.
    patients, volumes = cohort(folds * blocks, seed)
    settings = SplitSettings(
        method="kfold", folds=folds, test=0, stratify="tumour_volume", seed=seed
    )
    means = fold_means(draw_parts(patients, volumes, settings), patients, volumes)
    logs = np.log(list(volumes.values()))
    assert max(means) - min(means) <= (logs.max() - logs.min()) / blocks + 1e-9


@given(st.integers(30, 80), st.integers(0, 9))
def test_stratified_folds_are_more_alike_than_random_ones(count, seed):
    patients, volumes = cohort(count, seed)
    spread = {}
    for stratify in ("none", "tumour_volume"):
        ranges = []
        for draw in range(15):
            settings = SplitSettings(method="kfold", stratify=stratify, seed=draw)
            parts = draw_parts(patients, volumes, settings)
            ranges.append(np.ptp(fold_means(parts, patients, volumes)))
        spread[stratify] = np.mean(ranges)
    assert spread["tumour_volume"] < 0.8 * spread["none"]


def test_stratified_sides_take_one_of_each_block():
    patients = {f"c{i:02d}": f"p{i:02d}" for i in range(40)}
    volumes = {patient: float(i) for i, patient in enumerate(sorted(patients.values()))}
    drawn = set()
    for seed in range(20):
        settings = SplitSettings(validation=0.1, test=0.25, stratify="tumour_volume", seed=seed)
        parts = draw_parts(patients, volumes, settings)
        assert [int(c[1:]) // 10 for c in parts["validation"]] == [0, 1, 2, 3]
        drawn.add(tuple(parts["validation"]))
        rest = [c for c in sorted(patients) if c not in parts["validation"]]
        edges = [i * 36 // 10 for i in range(11)]
        blocks = [sum(a <= rest.index(c) < b for c in parts["test"]) for a, b in pairwise(edges)]
        assert blocks == [1] * 10
    assert len(drawn) > 15, "which one of a block, the seed says"


def test_the_test_patients_are_the_same_whatever_fold_and_number_of_folds():
    patients, volumes = cohort(30, 0)
    held_out = [
        draw_parts(patients, volumes, SplitSettings(method="kfold", folds=folds))["test"]
        for folds in (2, 5, 7)
    ]
    assert held_out[0] == held_out[1] == held_out[2] != []
    without = draw_parts(patients, volumes, SplitSettings(method="kfold", test=0))
    assert without["test"] == []


def test_the_draw_of_a_seed_never_changes():
    """Written down in the first release: old stores keep their splits."""
    patients = {f"c{i}": f"p{i}" for i in range(8)}
    parts = draw_parts(patients, {}, SplitSettings(validation=0.25, test=0.25, seed=3))
    order = sorted(patients.values())
    random.Random(3).shuffle(order)
    assert parts["validation"] == sorted(f"c{p[1:]}" for p in order[:2])
    assert parts["test"] == sorted(f"c{p[1:]}" for p in order[2:4])


def test_too_few_patients_for_the_folds_says_what_to_do():
    patients = {f"c{i}": f"p{i}" for i in range(5)}
    with pytest.raises(UserError) as caught:
        draw_parts(patients, {}, SplitSettings(method="kfold", folds=5))
    assert str(caught.value) == (
        "split.folds=5 needs 5 patients, but of the store's 5 split.test=0.15 leaves 4: set "
        "split.folds=4 or fewer, or set split.test=0, or add cases."
    )


def test_no_fold_always_gets_the_smallest_or_the_odd_one_out():
    patients = {f"c{i:02d}": f"p{i:02d}" for i in range(16)}
    volumes = {patient: float(i) for i, patient in enumerate(sorted(patients.values()))}
    places = {"c00": set(), "c15": set()}  # the smallest, and the one of the block that is left
    for seed in range(60):
        settings = SplitSettings(method="kfold", test=0, stratify="tumour_volume", seed=seed)
        for part, cases in draw_parts(patients, volumes, settings).items():
            for case in places.keys() & set(cases):
                places[case].add(part)
    assert all(len(found) == 5 for found in places.values())
