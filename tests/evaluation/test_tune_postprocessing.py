"""Cases in which it is known what helps."""

import numpy as np
import pytest

from kerasseg import anatomy
from kerasseg.config.evaluation import PostprocessingSettings, check_postprocessing
from kerasseg.evaluation.tune_postprocessing import TuningCase, tune_postprocessing
from kerasseg.inference.postprocessing import postprocessed_masks
from kerasseg.metrics.overlap import dice
from kerasseg.targets import label_to_masks

ONE = (1.0, 1.0, 1.0)


def label_of(seed=0):
    label = np.zeros((12, 16, 20), np.uint8)
    label[2:9, 2:11, 2:13] = anatomy.ED
    label[4:8, 4:9, 4 + seed : 10 + seed] = anatomy.NCR
    label[5:7, 5:8, 5 + seed : 9 + seed] = anatomy.ET
    return label


def case(label, masks=None, target="regions", low=0.05, high=0.95):
    masks = label_to_masks(label, target) if masks is None else masks
    return TuningCase(np.where(masks, high, low).astype(np.float32), label, ONE)


def mean_dice(cases, target, settings):
    """Of all channels and cases, one at a time."""
    names = list(anatomy.TARGETS[target])
    values = []
    for each in cases:
        truth = label_to_masks(each.label, target)
        found = postprocessed_masks(each.probabilities, target, each.spacing, 0.5, settings)
        for name in anatomy.tumour_channels(target):
            index = names.index(name)
            values.append(dice(truth[..., index], found[..., index]))
    return np.mean(values)


@pytest.mark.parametrize("target", anatomy.TARGETS)
def test_nothing_is_switched_on_where_nothing_is_gained(target):
    cases = [case(label_of(i), target=target) for i in range(2)]
    assert tune_postprocessing(cases, target) == PostprocessingSettings()


@pytest.mark.parametrize("target", ["regions", "labels", "binary"])
def test_specks_are_removed_by_the_smallest_limit_that_does(target):
    """60 voxels in one case, 10 in the other, side by side with the tumour."""
    cases = []
    for index, depth in enumerate((5, 1)):
        wrong = label_of(index)
        wrong[2 : 2 + depth, 13:15, 14:19] = anatomy.ED
        wrong[depth + 1, 13:15, 14:19] = anatomy.ED
        cases.append(case(label_of(index), label_to_masks(wrong, target), target))
    found = tune_postprocessing(cases, target)
    first = anatomy.tumour_channels(target)[-1 if target == "binary" else 0]
    channel = {"regions": "WT", "labels": "ED", "binary": first}[target]
    assert found == PostprocessingSettings(minimum_volume={channel: 100})
    check_postprocessing(found, target)
    assert mean_dice(cases, target, found) == 1


def test_a_lower_threshold_for_the_channel_that_needs_it():
    values = case(label_of()).probabilities.copy()
    values[..., 2] = np.where(label_of() == anatomy.ET, 0.33, 0.05)
    cases = [TuningCase(values, label_of(), ONE)]
    assert tune_postprocessing(cases, "regions") == PostprocessingSettings(thresholds={"ET": 0.3})


def test_holes_and_the_rule_for_enhancing_tumour():
    """Holes in WT that is not core; and one case has no ET but three voxels are called so."""
    wrong = label_of()
    wrong[5, 9, 11] = 0
    none = np.where(label_of(1) == anatomy.ET, anatomy.NCR, label_of(1)).astype(np.uint8)
    few = none.copy()
    few[6, 6, 6:9] = anatomy.ET
    cases = [
        case(label_of(), label_to_masks(wrong, "regions")),
        case(none, label_to_masks(few, "regions")),
    ]
    found = tune_postprocessing(cases, "regions")
    assert found.fill_holes == ("WT",)
    assert mean_dice(cases, "regions", found) == 1
    off = PostprocessingSettings()
    assert mean_dice(cases, "regions", found) > mean_dice(cases, "regions", off) + 0.1


def test_noise_never_makes_the_mean_worse():
    rng = np.random.default_rng(0)
    for target in ("subregions", "labels", "regions"):
        cases = []
        for index in range(2):
            right = case(label_of(index), target=target).probabilities
            noise = rng.normal(0, 0.3, right.shape).astype(np.float32)
            cases.append(TuningCase(np.clip(right + noise, 0, 1), label_of(index), ONE))
        found = tune_postprocessing(cases, target)
        off = mean_dice(cases, target, PostprocessingSettings())
        assert mean_dice(cases, target, found) > off
        check_postprocessing(found, target)


def test_no_cases():
    with pytest.raises(ValueError, match="at least one case"):
        tune_postprocessing([], "regions")
