"""Every figure of an evaluation is drawn from plain arrays, from one case on."""

import warnings

import numpy as np
import pytest
from matplotlib.text import Text

from kerasseg import anatomy
from kerasseg.figures.lesions import (
    draw_bland_altman,
    draw_error_volumes,
    draw_lesion_counts,
    draw_lesion_sizes,
    draw_volume_agreement,
)
from kerasseg.figures.probabilities import (
    draw_calibration_curve,
    draw_precision_recall_curve,
    draw_roc_curve,
    draw_threshold_sweep,
)
from kerasseg.figures.runs import draw_inference_time
from kerasseg.figures.scores import (
    draw_case_heatmap,
    draw_confusion_matrix,
    draw_cumulative_dice,
    draw_dice_against_volume,
    draw_mean_intervals,
    draw_metric_correlation,
    draw_metric_distribution,
    draw_paired_differences,
    draw_precision_against_recall,
    draw_run_means,
)
from kerasseg.figures.style import class_colours
from kerasseg.figures.volumes import (
    ComparedCase,
    draw_case_planes,
    draw_case_slices,
    draw_same_slices,
    draw_slice_profile,
    error_kinds,
    planes_through,
)
from kerasseg.metrics.calibration import ProbabilityCounts
from kerasseg.metrics.statistics import bootstrap_mean, compare_paired
from kerasseg.targets import label_to_masks

CLASSES = ("NCR", "ED", "ET", "WT", "TC")


def shares(count, classes=CLASSES, seed=0):
    random = np.random.default_rng(seed)
    return {name: random.random(count).tolist() for name in classes}


def counts_of(truth):
    probabilities = np.random.default_rng(0).random(truth.size)
    return {"ET": ProbabilityCounts.count(probabilities, truth)}


def draw(figure):
    """Lay the figure out, which computes every artist but no pixel, and return all its text.

    Its legends must lie within it and over no panel.
    """
    figure.draw_without_rendering()
    for box in (legend.get_window_extent() for legend in figure.legends):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, "the legend is cut"
        assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes)
    return " | ".join(text.get_text() for text in figure.findobj(Text))


# Of two cases no figure has a branch of its own, and of 70 no figure draws anything else.
@pytest.mark.parametrize(
    "count", [1, *(pytest.param(n, marks=pytest.mark.all_only) for n in (2, 70))]
)
def test_figures_over_cases(count):
    dice = shares(count)
    dice["ET"][0] = float("nan")
    volumes = {n: [100 * v for v in row] for n, row in shares(count, seed=1).items()}
    volumes["ET"][0] = 0.0
    other = {n: [100 * v for v in row] for n, row in shares(count, seed=2).items()}
    rule = {name: [i == 0 for i in range(count)] for name in CLASSES}
    ids = [f"case_{i}" for i in range(count)]
    means = {name: {"dice": bootstrap_mean(row, resamples=100)} for name, row in dice.items()}
    lesions = {name: {"found": 3, "missed": 1, "invented": 12} for name in CLASSES}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = draw(draw_metric_distribution(dice, rule, "T", "Dice", share=True))
        assert "decided by the rule" in text and "WT" in text
        draw(draw_metric_distribution(volumes, rule, "T", "HD95 [mm]", share=False))
        assert "95 %" in draw(draw_mean_intervals(means, {"dice": "Dice"}, 0.95))
        draw(draw_cumulative_dice(dice))
        draw(draw_case_heatmap(ids, dice))
        text = draw(draw_dice_against_volume(volumes, dice))
        assert "1 case without it in the truth" in text and "true volume [mL]" in text
        draw(draw_volume_agreement(volumes, other))
        bias = np.mean(other["ED"]) - np.mean(volumes["ED"])
        assert f"ED: bias {bias:+.2f} mL" in draw(draw_bland_altman(volumes, other))
        draw(draw_precision_against_recall(dice, shares(count, seed=3)))
        draw(draw_error_volumes(ids, *(list(volumes.values())[:3]), "WT"))
        draw(draw_metric_correlation(dice, "T"))
        assert "12" in draw(draw_lesion_counts(lesions))
        text = draw(draw_lesion_sizes({"ED": [5.0, 900.0], "ET": []}, {"ED": [0, 1], "ET": []}))
        assert "ED: 1 of 2 missed" in text and "no lesion" in text
        text = draw(draw_inference_time([2.0] * count, [10] * count))
        assert "median 2 s" in text and "median 200 ms" in text
        found = {n: compare_paired(dice[n], shares(count, seed=5)[n]) for n in CLASSES}
        assert "right of 0: b" in draw(draw_paired_differences(found, "a", "b", "Dice"))
        runs = {run: {n: row["dice"] for n, row in means.items()} for run in ("a", "b", "c")}
        draw(draw_run_means(runs, "Dice"))


@pytest.mark.parametrize("kind", ["both", "no positives", "all positives"])
def test_curves_of_voxels(kind):
    truth = np.random.default_rng(1).random(4000) < {"both": 0.2, "no positives": 0}.get(kind, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Matplotlib 3.9 calls pyparsing by names that its newest version calls old.
        warnings.simplefilter("ignore", DeprecationWarning)
        text = draw(draw_calibration_curve(counts_of(truth)))
        assert "ET: expected calibration error 0." in text
        if kind != "both":
            warnings.filterwarnings("ignore", message="No artists with labels")
        draw(draw_precision_recall_curve(counts_of(truth)))
        draw(draw_roc_curve(counts_of(truth)))
        draw(draw_threshold_sweep(counts_of(truth)))


def test_areas_are_those_of_the_definitions():
    random = np.random.default_rng(3)
    truth = random.random(3000) < 0.3
    probabilities = np.clip(0.35 * truth + 0.65 * random.random(3000), 0, 0.999)
    counts = {"ET": ProbabilityCounts.count(probabilities, truth)}
    # The area under the ROC curve is the chance that a positive is above a negative.
    above = (probabilities[truth][:, None] > probabilities[~truth][None]).mean()
    text = draw(draw_roc_curve(counts))
    assert float(text.split("ET: area ")[1].split(" ")[0]) == pytest.approx(above, abs=2e-3)
    order = np.argsort(-probabilities)
    hits = np.cumsum(truth[order])
    average = (hits / np.arange(1, 3001))[truth[order]].mean()
    text = draw(draw_precision_recall_curve(counts))
    assert float(text.split("ET: area ")[1].split(" ")[0]) == pytest.approx(average, abs=5e-3)


def test_a_confusion_matrix_is_normalised_by_row():
    matrix = np.array([[900, 100], [1500, 4500]])
    text = draw(draw_confusion_matrix(matrix, ("background", "tumour")))
    assert "75.0%\n4.5 k" in text and "10.0%\n100" in text
    assert "none" in draw(draw_confusion_matrix(matrix * [[0], [1]], ("a", "b")))


@pytest.mark.parametrize(
    ("kind", "depth", "target"),
    [
        ("image", 8, "labels"),
        ("image", 1, "regions"),
        ("image", 8, "binary"),
        ("no image", 8, "subregions"),
        ("no image", 1, "binary"),
        ("no tumour", 8, "regions"),
        ("no tumour", 1, "labels"),
    ],
)
def test_a_case_in_pictures(target, depth, kind):
    random = np.random.default_rng(0)
    truth = np.zeros((depth, 14, 11), np.uint8)
    truth[depth // 2 :, 3:9, 2:7] = random.integers(0, 4, (depth - depth // 2, 6, 5))
    truth = truth * (kind != "no tumour")
    masks = label_to_masks(np.roll(truth, 1, axis=1), target)
    image = random.random(truth.shape).astype(np.float32) if kind == "image" else None
    arguments = (image, truth, masks, target, (3.0, 1.0, 2.0), "T")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = draw(draw_case_planes(*arguments))
        assert ("sagittal" in text) == (depth > 1) and "invented" in text
        assert ("another class" in text) == (target != "binary")
        draw(draw_case_slices(*arguments))
        draw(draw_slice_profile(truth > 0, masks.any(-1), (3.0, 1.0, 2.0), "T", "red"))
        case = ComparedCase(
            "c", image, truth, (3.0, 1.0, 2.0), {"a": masks, "b": masks}, {"b": "Dice 0.50"}
        )
        assert "b\nDice 0.50" in draw(draw_same_slices([case, case], target))


def test_kinds_of_errors():
    kinds = error_kinds(np.array([0, 0, 1, 1, 2]), np.array([0, 3, 1, 2, 0]))
    assert {name: np.flatnonzero(mask).tolist() for name, mask in kinds.items()} == {
        "right": [2],
        "another class": [3],
        "missed": [4],
        "invented": [1],
    }


def test_planes_go_through_most_tumour_with_the_crown_up():
    tumour = np.zeros((6, 8, 10), bool)
    tumour[4, 2:7, 5:7] = tumour[1, 2, 5] = True
    axial, coronal, sagittal = planes_through(tumour, np.ones_like(tumour), (3.0, 1.0, 2.0))
    assert (axial.index, coronal.index, sagittal.index) == (4, 2, 5)
    assert (axial.aspect, coronal.aspect, sagittal.aspect) == (0.5, 1.5, 3.0)
    assert coronal.cut(tumour)[1, 5] and coronal.cut(tumour)[4, 5], "upside down"
    assert axial.cut(tumour).sum() == 10


def test_classes_that_share_a_colour_are_told_apart():
    colours = class_colours(CLASSES)
    assert len(set(colours.values())) == 5
    assert all(colours[name] == anatomy.COLOURS[name] for name in ("NCR", "ED", "ET"))
    assert class_colours(("WT", "TC", "ET")) == {n: anatomy.COLOURS[n] for n in ("WT", "TC", "ET")}
