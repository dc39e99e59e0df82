"""Every figure of an evaluation."""

from collections.abc import Iterator, Sequence

import numpy as np

from kerasseg import anatomy
from kerasseg.evaluation.about import About
from kerasseg.evaluation.confusion import confusion_classes
from kerasseg.evaluation.drawing import Drawing
from kerasseg.evaluation.figures.bland_altman import draw_bland_altman
from kerasseg.evaluation.figures.calibration_curve import draw_calibration_curve
from kerasseg.evaluation.figures.case_heatmap import draw_case_heatmap
from kerasseg.evaluation.figures.case_planes import draw_case_planes
from kerasseg.evaluation.figures.case_slices import draw_case_slices
from kerasseg.evaluation.figures.confusion_matrix import draw_confusion_matrix
from kerasseg.evaluation.figures.cumulative_dice import draw_cumulative_dice
from kerasseg.evaluation.figures.dice_against_volume import draw_dice_against_volume
from kerasseg.evaluation.figures.error_volumes import draw_error_volumes
from kerasseg.evaluation.figures.inference_time import draw_inference_time
from kerasseg.evaluation.figures.lesion_counts import draw_lesion_counts
from kerasseg.evaluation.figures.lesion_sizes import draw_lesion_sizes
from kerasseg.evaluation.figures.mean_intervals import draw_mean_intervals
from kerasseg.evaluation.figures.metric_correlation import draw_metric_correlation
from kerasseg.evaluation.figures.metric_distribution import draw_metric_distribution
from kerasseg.evaluation.figures.precision_against_recall import draw_precision_against_recall
from kerasseg.evaluation.figures.precision_recall_curve import draw_precision_recall_curve
from kerasseg.evaluation.figures.roc_curve import draw_roc_curve
from kerasseg.evaluation.figures.slice_profile import draw_slice_profile
from kerasseg.evaluation.figures.style import shades
from kerasseg.evaluation.figures.threshold_sweep import draw_threshold_sweep
from kerasseg.evaluation.figures.training_curves import training_curves
from kerasseg.evaluation.figures.volume_agreement import draw_volume_agreement
from kerasseg.evaluation.ranked_cases import ranked_cases
from kerasseg.evaluation.results import Results
from kerasseg.evaluation.scores import CaseScore, class_pairs, scored_classes
from kerasseg.evaluation.summary import Means

_SCORES, _CASES = "Scores", "Worst, median and best"
_ERRORS, _VOLUMES = "Kinds of errors", "Volumes and lesions"
_PROBABILITIES, _RUN = "Probabilities", "Training and time"
_CORRELATED = (
    "dice",
    "surface_dice",
    "hd95",
    "assd",
    "precision",
    "recall",
    "volume_error_absolute",
    "lesion_wise_dice",
)


def draw_figures(results: Results, means: Means, about: About) -> Iterator[Drawing]:
    """One after the other, so that only one is in memory; those whose data are there."""
    yield from _scores(results, means, about)
    yield from _cases(results, about)
    yield from _errors(results)
    yield from _volumes(results)
    yield from _probabilities(results)
    yield from _run(results, about)


def values_of(scores: Sequence[CaseScore], metric: str) -> dict[str, list[float]]:
    """Class -> a metric of every case."""
    return {n: [s.classes[n].values[metric] for s in scores] for n in scores[0].classes}


def _scores(results: Results, means: Means, about: About) -> Iterator[Drawing]:
    scores = results.scores
    for metric, title, label in (
        ("dice", "Dice per class", "Dice"),
        ("hd95", "HD95 per class", "HD95 [mm], small is good"),
        (
            "surface_dice",
            "Surface Dice per class",
            f"share of the surface within {about.settings.tolerance:g} mm",
        ),
    ):
        ruled = {
            name: [metric in score.classes[name].by_rule for score in scores]
            for name in scores[0].classes
        }
        figure = draw_metric_distribution(
            values_of(scores, metric), ruled, title, label, share=metric != "hd95"
        )
        yield Drawing(f"{metric}_distribution", _SCORES, "", figure)
    labels = {"dice": "Dice", "hd95": "HD95 [mm]", "lesion_wise_dice": "lesion-wise Dice"}
    yield Drawing(
        "mean_intervals",
        _SCORES,
        "Bootstrapped over patients: what the means may be by the luck of the cases alone.",
        draw_mean_intervals(means, labels, about.settings.confidence),
    )
    dice = values_of(scores, "dice")
    yield Drawing("cumulative_dice", _SCORES, "", draw_cumulative_dice(dice))
    figure = draw_case_heatmap([score.case_id for score in scores], dice)
    yield Drawing("case_heatmap", _SCORES, "", figure)
    volumes = values_of(scores, "volume_truth")
    yield Drawing("dice_against_volume", _SCORES, "", draw_dice_against_volume(volumes, dice))


def _cases(results: Results, about: About) -> Iterator[Drawing]:
    target, colours = results.target, shades(scored_classes(results.target))
    for rank, score in ranked_cases(results.scores).items():
        truth, masks = results.pairs[score.case_id].unpack()
        spacing = results.pairs[score.case_id].spacing
        image = about.image_of(score.case_id)
        words = ", ".join(f"{name} {value:.2f}" for name, value in score.dice.items())
        title = f"{rank} case, {score.case_id}: Dice {words}"
        arguments = (image, truth, masks, target, spacing, title)
        yield Drawing(f"{rank}_planes", _CASES, "", draw_case_planes(*arguments))
        if truth.shape[0] > 1:
            yield Drawing(f"{rank}_slices", _CASES, "", draw_case_slices(*arguments))
            pairs = {name: (t, p) for name, t, p in class_pairs(truth, masks, target)}
            name = "WT" if "WT" in pairs else next(iter(pairs))
            title = f"{rank} case, {score.case_id}: area of {name}"
            figure = draw_slice_profile(*pairs[name], spacing, title, colours[name])
            yield Drawing(f"{rank}_profile", _CASES, "", figure)


def _errors(results: Results) -> Iterator[Drawing]:
    scores = results.scores
    classes = confusion_classes(results.target)
    yield Drawing(
        "confusion_matrix",
        _ERRORS,
        "Voxels of all cases; every row sums to 1.",
        draw_confusion_matrix(results.confusion, classes),
    )
    whole = "WT" if "WT" in scores[0].classes else next(iter(scores[0].classes))
    rows = [score.classes[whole].values for score in scores]
    # From Dice, which the empty rule may have decided, nothing can be computed; from volumes and
    # the Dice of cases that have both, the overlap can.
    hits = [_overlap(row) for row in rows]
    figure = draw_error_volumes(
        [score.case_id for score in scores],
        hits,
        [row["volume_prediction"] - hit for row, hit in zip(rows, hits, strict=True)],
        [row["volume_truth"] - hit for row, hit in zip(rows, hits, strict=True)],
        whole,
    )
    yield Drawing("error_volumes", _ERRORS, "", figure)
    table = {m: [row[m] for row in rows] for m in _CORRELATED}
    figure = draw_metric_correlation(table, f"Which metrics of {whole} agree")
    yield Drawing("metric_correlation", _ERRORS, "Spearman's, over cases.", figure)
    figure = draw_precision_against_recall(
        values_of(scores, "precision"), values_of(scores, "recall")
    )
    yield Drawing("precision_against_recall", _ERRORS, "", figure)


def _overlap(row: dict[str, float]) -> float:
    """mL in both masks."""
    total = row["volume_truth"] + row["volume_prediction"]
    one_empty = min(row["volume_truth"], row["volume_prediction"]) == 0
    return 0.0 if one_empty else row["dice"] * total / 2


def _volumes(results: Results) -> Iterator[Drawing]:
    scores = results.scores
    truth, predicted = (values_of(scores, f"volume_{w}") for w in ("truth", "prediction"))
    yield Drawing("volume_agreement", _VOLUMES, "", draw_volume_agreement(truth, predicted))
    yield Drawing("bland_altman", _VOLUMES, "", draw_bland_altman(truth, predicted))
    counts = {
        name: {
            kind: float(np.nansum([s.classes[name].values[f"lesions_{kind}"] for s in scores]))
            for kind in ("found", "missed", "invented")
        }
        for name in scores[0].classes
    }
    yield Drawing("lesion_counts", _VOLUMES, "", draw_lesion_counts(counts))
    lesions = {n: [x for s in scores for x in s.classes[n].lesions] for n in scores[0].classes}
    figure = draw_lesion_sizes(
        {name: [lesion.volume for lesion in found] for name, found in lesions.items()},
        {name: [lesion.dice for lesion in found] for name, found in lesions.items()},
    )
    yield Drawing("lesion_sizes", _VOLUMES, "", figure)


def _probabilities(results: Results) -> Iterator[Drawing]:
    counts = results.probabilities
    if not counts:
        return
    where = "Every voxel of the brain, of all cases."
    softmax = anatomy.ACTIVATIONS[results.target] == "softmax"
    yield Drawing("calibration_curve", _PROBABILITIES, where, draw_calibration_curve(counts))
    figure = draw_precision_recall_curve(counts)
    yield Drawing("precision_recall_curve", _PROBABILITIES, where, figure)
    yield Drawing("roc_curve", _PROBABILITIES, where, draw_roc_curve(counts))
    words = " The network takes the most probable class, not a threshold." if softmax else ""
    yield Drawing("threshold_sweep", _PROBABILITIES, where + words, draw_threshold_sweep(counts))


def _run(results: Results, about: About) -> Iterator[Drawing]:
    if about.history:
        figure = training_curves(about.history, about.best_epoch, results.target)
        yield Drawing("training_curves", _RUN, "", figure)
    seconds = [score.seconds for score in results.scores]
    if np.isfinite(seconds).all():
        figure = draw_inference_time(seconds, [score.depth for score in results.scores])
        yield Drawing("inference_time", _RUN, "", figure)
