import csv

import numpy as np
import pytest

from kerasseg import anatomy
from kerasseg.config.evaluation import MetricsSection
from kerasseg.evaluation.results import confusion_classes, confusion_matrix
from kerasseg.evaluation.scores import (
    SlicewiseDice,
    class_pairs,
    mean_scores,
    metric_settings,
    score_case,
    score_columns,
    scored_classes,
    write_metrics,
)
from kerasseg.evaluation.statistics import count_by_rule, summarise
from kerasseg.metrics.case_metrics import UNITS, MetricSettings, case_metrics
from kerasseg.metrics.overlap import dice
from kerasseg.targets import convert_masks, label_to_masks


def case(seed=0, channels=3):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 4, (4, 5, 6)).astype(np.uint8), rng.random((4, 5, 6, channels)) < 0.4


def test_regions_are_unions_of_subregions():
    label, masks = case()
    scores = score_case("a", "test", label, masks, "subregions").dice
    assert tuple(scores) == score_columns("subregions") == ("NCR", "ED", "ET", "mean", "WT", "TC")
    for index, name in enumerate(("NCR", "ED", "ET")):
        assert scores[name] == dice(label == index + 1, masks[..., index])
    assert scores["mean"] == pytest.approx(np.mean([scores[n] for n in ("NCR", "ED", "ET")]))
    assert scores["WT"] == dice(label > 0, masks.any(axis=-1))
    assert scores["TC"] == dice((label == 1) | (label == 3), masks[..., 0] | masks[..., 2])


def test_the_whole_tumour_is_any_label_and_has_no_second_column():
    label, masks = case(channels=1)
    scores = score_case("a", "test", label, masks, "binary").dice
    assert score_columns("binary") == ("tumour",)
    assert scores == {"tumour": dice(label > 0, masks[..., 0])}
    assert score_case("a", "test", label, label[..., None] > 0, "binary").dice == {"tumour": 1}


@pytest.mark.parametrize("target", anatomy.TARGETS)
def test_a_perfect_case_and_an_empty_one(target):
    label, _ = case()
    perfect = score_case("a", "test", label, label_to_masks(label, target), target).dice
    assert tuple(perfect) == score_columns(target) and set(perfect.values()) == {1.0}
    empty = score_case("a", "test", label * 0, label_to_masks(label * 0, target), target).dice
    assert set(empty.values()) == {1.0}
    missed = score_case("a", "test", label, label_to_masks(label * 0, target), target).dice
    assert set(missed.values()) == {0.0}


def test_the_background_of_labels_is_not_scored():
    """They have the columns of sub-regions, and the same scores."""
    label, _ = case()
    prediction = np.roll(label, 1, axis=2)
    scores = score_case("a", "test", label, label_to_masks(prediction, "labels"), "labels").dice
    assert tuple(scores) == score_columns("labels") == score_columns("subregions")
    masks = label_to_masks(prediction, "subregions")
    assert scores == score_case("a", "test", label, masks, "subregions").dice
    assert 0 < scores["mean"] < 1


def test_regions_are_scored_as_they_were_predicted():
    label, masks = case()
    scores = score_case("a", "test", label, masks, "regions").dice
    assert tuple(scores) == score_columns("regions") == ("WT", "TC", "ET", "mean")
    assert scores["WT"] == dice(label > 0, masks[..., 0])
    assert scores["TC"] == dice((label == 1) | (label == 3), masks[..., 1])
    assert scores["ET"] == dice(label == 3, masks[..., 2])
    assert scores["mean"] == pytest.approx((scores["WT"] + scores["TC"] + scores["ET"]) / 3)


def test_one_segmentation_scores_the_same_as_whatever_target():
    label, _ = case()
    prediction = np.roll(label, 1, axis=0)
    scores = {
        target: score_case(
            "a",
            "test",
            label,
            convert_masks(label_to_masks(prediction, "labels"), "labels", target),
            target,
        ).dice
        for target in anatomy.TARGETS
    }
    for region in ("WT", "TC", "ET"):
        assert len({scores[t][region] for t in ("labels", "subregions", "regions")}) == 1
    assert scores["binary"]["tumour"] == scores["regions"]["WT"]


@pytest.mark.parametrize(
    ("target", "channels"), [("labels", 4), ("subregions", 3), ("regions", 3), ("binary", 1)]
)
def test_the_table(tmp_path, target, channels):
    scores = [score_case(f"c{i}", "test", *case(i, channels), target) for i in range(3)]
    write_metrics(tmp_path / "metrics.csv", scores, target)
    with (tmp_path / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    columns = [f"dice_{name}" for name in score_columns(target)]
    assert list(table[0]) == ["case_id", "split", *columns]
    full = [
        score_case(f"c{i}", "test", *case(i, channels), target, (3.0, 1.0, 2.0), MetricSettings())
        for i in range(3)
    ]
    write_metrics(tmp_path / "full.csv", full, target)
    with (tmp_path / "full.csv").open() as file:
        wide = list(csv.DictReader(file))
    assert [{c: r[c] for c in columns} for r in wide] == [{c: r[c] for c in columns} for r in table]
    name = scored_classes(target)[-1]
    assert f"hd95_{name}" in wide[0] and wide[0][f"empty_{name}"] == "neither"
    label, masks = case(1, channels)
    for class_name, truth, predicted in class_pairs(label, masks, target):
        values = case_metrics(truth, predicted, (3.0, 1.0, 2.0)).values
        for metric in set(UNITS) - {"dice"}:
            assert float(wide[1][f"{metric}_{class_name}"]) == pytest.approx(
                values[metric], abs=1e-6
            )
    means = mean_scores(scores)
    assert tuple(means) == score_columns(target)
    for name, mean in means.items():
        assert mean == pytest.approx(np.mean([float(r[f"dice_{name}"]) for r in table]), abs=1e-6)
    assert mean_scores([]) == {}


def test_other_metrics_than_dice_need_a_spacing():
    with pytest.raises(ValueError, match="need the spacing"):
        score_case("a", "test", *case(), "subregions", settings=MetricSettings())


def test_a_rule_that_skips_leaves_cases_out_of_the_mean():
    skip = metric_settings(MetricsSection(empty="skip"))
    label, masks = case()
    spacing = (1.0, 1.0, 1.0)
    scores = [
        score_case("a", "test", label, masks, "subregions", spacing, skip),
        score_case("b", "test", label * 0, masks, "subregions", spacing, skip),
    ]
    assert mean_scores(scores)["ED"] == scores[0].dice["ED"]
    assert count_by_rule(scores)["hd95_TC"] == 1
    means = summarise(scores, MetricsSection(empty="skip", resamples=100))
    assert means["ED"]["hd95"].cases == 1 and means["ED"]["specificity"].cases == 2


def test_slices_without_the_class_do_not_count():
    random = np.random.default_rng(1)
    truth, prediction = random.random((2, 5, 6, 7)) < 0.3
    truth[1] = prediction[1] = False
    truth[2] = False
    found = SlicewiseDice.measure(truth, prediction)
    wanted = [dice(truth[i], prediction[i]) for i in (0, 2, 3, 4)]
    assert found.slices == 4 and found.mean == pytest.approx(np.mean(wanted))
    assert wanted[1] == 0 and (found + found).mean == pytest.approx(found.mean)
    sagittal = SlicewiseDice.measure(truth, prediction, axis=2)
    wanted = [dice(truth[..., i], prediction[..., i]) for i in range(7)]
    assert sagittal.mean == pytest.approx(np.mean(wanted))
    assert np.isnan(SlicewiseDice().mean)


@pytest.mark.parametrize("target", anatomy.TARGETS)
def test_voxels_by_true_and_predicted_class(target):
    random = np.random.default_rng(4)
    truth = random.integers(0, 4, (4, 5, 6)).astype(np.uint8)
    prediction = random.integers(0, 4, (4, 5, 6)).astype(np.uint8)
    matrix = confusion_matrix(truth, label_to_masks(prediction, target), target)
    if target == "binary":
        truth, prediction = truth > 0, prediction > 0
    for row, column in np.ndindex(matrix.shape):
        assert matrix[row, column] == ((truth == row) & (prediction == column)).sum()
    assert len(matrix) == len(confusion_classes(target)) and matrix.sum() == truth.size
