import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from kerasseg import anatomy
from kerasseg.metrics.case_metrics import BY_RULE, UNITS, MetricSettings, case_metrics
from kerasseg.metrics.lesions import Components, lesion_wise
from kerasseg.metrics.overlap import EmptyRule, dice
from kerasseg.metrics.surface import SurfaceDistances
from tests.metrics.masks import brute_distances, pairs

MASKS = hnp.arrays(bool, (3, 5, 4))
EMPTY, SOME = np.zeros((3, 4, 5), bool), np.zeros((3, 4, 5), bool)
SOME[1, 1:3, 2:4] = True
UNIT = (1.0, 1.0, 1.0)


def reference(truth, prediction, spacing, tolerance):
    """Everything but the lesion-wise scores, voxel by voxel, of masks with voxels."""
    hits = np.sum(truth * prediction)
    true, predicted, volume = truth.sum(), prediction.sum(), np.prod(spacing) / 1000
    one, other = brute_distances(truth, prediction, spacing)
    both = np.concatenate([one, other])
    ours, theirs = (ndimage.label(mask, np.ones((3, 3, 3))) for mask in (truth, prediction))
    found = len(set(ours[0][prediction]) - {0})
    outside = np.sum(~truth)
    return {
        "dice": 2 * hits / (true + predicted),
        "iou": hits / np.sum(truth | prediction),
        "precision": hits / predicted,
        "recall": hits / true,
        "specificity": np.sum(~truth & ~prediction) / outside if outside else 1.0,
        "volume_truth": true * volume,
        "volume_prediction": predicted * volume,
        "volume_error": predicted * volume - true * volume,
        "volume_error_absolute": abs(predicted * volume - true * volume),
        "volume_error_relative": (predicted - true) / true,
        "hd95": max(np.percentile(one, 95), np.percentile(other, 95)),
        "assd": both.mean(),
        "surface_dice": np.mean(both <= tolerance + 1e-6),
        "lesions_found": found,
        "lesions_missed": ours[1] - found,
        "lesions_invented": theirs[1] - len(set(theirs[0][truth]) - {0}),
    }


def test_against_brute_force():
    compared = 0
    for truth, prediction, spacing in pairs(280, seed=2):
        if not (truth.any() and prediction.any()):
            continue
        compared += 1
        got = case_metrics(truth, prediction, spacing, MetricSettings(tolerance=2.3))
        assert got.empty == "neither" and got.by_rule == ()
        expected = reference(truth, prediction, spacing, 2.3)
        scores = lesion_wise(truth, Components.of_mask(prediction), spacing)
        expected |= {
            "lesion_wise_dice": scores.dice,
            "lesion_wise_hd95": scores.hd95,
            "lesion_wise_found": scores.found,
            "lesion_wise_invented": scores.invented,
            "lesion_wise_missed": scores.missed,
        }
        assert got.values == pytest.approx(expected, abs=1e-9)
        assert got.lesions == scores.lesions
    assert compared > 180


@pytest.mark.parametrize("flat", [0, 1, 2])
def test_a_slice_is_measured_as_a_picture(flat):
    rng = np.random.default_rng(flat)
    smooth = ndimage.gaussian_filter(rng.standard_normal((2, 17, 23)), (0, 2, 2)) > 0.02
    truth, prediction = (np.moveaxis(mask[None], 0, flat) for mask in smooth)
    got = case_metrics(truth, prediction, (1.0, 1.5, 2.0))
    whole = SurfaceDistances.measure(truth, prediction, (1.0, 1.5, 2.0))
    assert got.values["hd95"] == pytest.approx(whole.hd95)
    assert got.values["assd"] == pytest.approx(whole.assd)
    # All voxels of a flat body are surface; of a slice only its contour is.
    assert whole.of_truth.size < truth.sum()


def test_a_flat_lesion_in_a_volume_is_no_picture():
    truth, prediction = np.zeros((2, 5, 9, 9), bool)
    truth[2, 1:8, 1:8] = prediction[2, 4, 4] = True
    got = case_metrics(truth, prediction, UNIT).values
    assert got["assd"] == pytest.approx(reference(truth, prediction, UNIT, 1.0)["assd"])


@pytest.mark.parametrize(
    ("truth", "prediction", "empty", "overlap", "distance"),
    [
        (EMPTY, EMPTY, "both", 1.0, 0.0),
        (EMPTY, SOME, "truth", 0.0, 373.1287),
        (SOME, EMPTY, "prediction", 0.0, 373.1287),
    ],
)
def test_empty_masks_follow_brats(truth, prediction, empty, overlap, distance):
    got = case_metrics(truth, prediction, UNIT)
    assert got.empty == empty and got.by_rule == BY_RULE
    for name in BY_RULE:
        expected = distance if UNITS[name] == "mm" else overlap
        assert got.values[name] == pytest.approx(expected), name
    assert got.values["dice"] == dice(truth, prediction)
    assert got.values["specificity"] == pytest.approx(1 - prediction.sum() / 60)


def test_empty_rule_can_leave_cases_out():
    settings = MetricSettings(("recall", "volume_error", "hd95"), empty=EmptyRule(*(math.nan,) * 4))
    got = case_metrics(SOME, EMPTY, UNIT, settings)
    assert math.isnan(got.values["recall"]) and math.isnan(got.values["hd95"])
    assert got.values["volume_error"] == pytest.approx(-0.004)
    assert got.by_rule == ("recall", "hd95")


def test_relative_volume_error_of_an_empty_truth():
    relative = [case_metrics(EMPTY, p, UNIT).values["volume_error_relative"] for p in (EMPTY, SOME)]
    assert relative[0] == 0 and math.isnan(relative[1])


def test_only_what_is_asked_for_is_measured(monkeypatch):
    for name in ("SurfaceDistances", "LesionCounts", "lesion_wise", "Components"):
        monkeypatch.setattr(sys.modules["kerasseg.metrics.case_metrics"], name, None)
    got = case_metrics(SOME, SOME, UNIT, MetricSettings(metrics=("iou", "dice")))
    assert list(got.values) == ["iou", "dice"] and got.lesions == ()


def test_tolerance_reaches_the_surface_dice():
    moved = np.roll(SOME, 1, 0)
    values = [
        case_metrics(SOME, moved, (2.0, 1, 1), MetricSettings(tolerance=t)).values["surface_dice"]
        for t in (1.9, 2.0)
    ]
    assert values == [0.0, 1.0]


@settings(deadline=None)
@given(MASKS, MASKS)
def test_symmetric_but_for_the_names(truth, prediction):
    there = case_metrics(truth, prediction, (1.0, 2.0, 3.0)).values
    back = case_metrics(prediction, truth, (1.0, 2.0, 3.0)).values
    for name in ("dice", "iou", "hd95", "assd", "surface_dice", "volume_error_absolute"):
        assert there[name] == pytest.approx(back[name])
    assert there["precision"] == pytest.approx(back["recall"])
    assert there["volume_error"] == pytest.approx(-back["volume_error"])


@settings(deadline=None)
@given(MASKS)
def test_identical_masks_are_perfect(mask):
    values = case_metrics(mask, mask, (0.5, 2.0, 1.0)).values
    for name in ("dice", "iou", "precision", "recall", "specificity", "surface_dice"):
        assert values[name] == 1
    for name in ("hd95", "assd", "volume_error", "lesions_invented", "lesions_missed"):
        assert values[name] == 0


@settings(deadline=None)
@given(MASKS, MASKS, st.integers(0, 3), st.integers(0, 2))
def test_air_around_changes_specificity_only(truth, prediction, before, after):
    wide = [
        np.pad(mask, ((before, after), (after, before), (1, 0))) for mask in (truth, prediction)
    ]
    values = case_metrics(truth, prediction, (1.0, 2.0, 3.0)).values
    wider = case_metrics(*wide, (1.0, 2.0, 3.0)).values
    values.pop("specificity"), wider.pop("specificity")
    assert wider == pytest.approx(values, nan_ok=True)


@settings(deadline=None)
@given(MASKS, MASKS)
def test_bounds(truth, prediction):
    values = case_metrics(truth, prediction, UNIT).values
    assert values["iou"] <= values["dice"] or values["dice"] == 0
    for name, unit in UNITS.items():
        assert values[name] >= 0 or name.startswith("volume_error") or math.isnan(values[name])
        if not unit and not name.startswith(("volume", "lesion")):
            assert values[name] <= 1


def test_constants_of_brats():
    assert round(anatomy.BRATS_DIAGONAL, 2) == 373.13
    assert anatomy.BRATS_SHAPE[0] == anatomy.BRATS_SLICES


@pytest.mark.parametrize(
    ("truth", "prediction", "spacing", "words"),
    [
        (SOME.astype(np.uint8), SOME, UNIT, "truth is uint8"),
        (SOME, SOME[0], UNIT, "prediction is bool"),
        (SOME, SOME[:2], UNIT, "one shape"),
        (SOME[:0], SOME[:0], UNIT, "with voxels"),
        (SOME, SOME, (1.0, 0.0, 1.0), "above 0"),
        (SOME, SOME, (1.0, 1.0), "three sides"),
    ],
)
def test_wrong_masks_are_refused(truth, prediction, spacing, words):
    with pytest.raises(ValueError, match=words):
        case_metrics(truth, prediction, spacing)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match=r"unknown metric hd100: there are dice, iou"):
        MetricSettings(metrics=("hd100",))
    with pytest.raises(ValueError, match="tolerance"):
        MetricSettings(tolerance=-1.0)
    with pytest.raises(ValueError, match="overlap_one_empty is 2"):
        EmptyRule(overlap_one_empty=2.0)
    with pytest.raises(ValueError, match="distance_both_empty"):
        EmptyRule(distance_both_empty=-1.0)
