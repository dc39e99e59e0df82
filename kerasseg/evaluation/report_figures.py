"""The figures of an evaluation's page."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from kerasseg import anatomy
from kerasseg.evaluation.results import Provenance, Results, confusion_classes, stored_box
from kerasseg.evaluation.scores import CaseScore, class_pairs, scored_classes
from kerasseg.evaluation.statistics import ranked_cases
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
from kerasseg.figures.runs import draw_inference_time, draw_training_curves
from kerasseg.figures.scores import (
    draw_case_heatmap,
    draw_confusion_matrix,
    draw_cumulative_dice,
    draw_dice_against_volume,
    draw_mean_intervals,
    draw_metric_correlation,
    draw_metric_distribution,
    draw_precision_against_recall,
)
from kerasseg.figures.style import class_colours
from kerasseg.figures.volumes import (
    draw_case_planes,
    draw_case_slices,
    draw_overlay,
    draw_slice_profile,
    draw_views,
    has_depth,
)
from kerasseg.page import Drawing
from kerasseg.records.store import RecordStore
from kerasseg.targets import masks_to_label

_SCORES, _CASES = "Scores", "Cases"
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


def draw_figures(results: Results, provenance: Provenance) -> Iterator[Drawing]:
    """Draw every figure whose data are there, one after the other."""
    yield from _scores(results)
    yield from _cases(results, provenance)
    yield from _errors(results)
    yield from _volumes(results)
    yield from _probabilities(results)
    yield from _run(results, provenance)


def draw_first_cases(
    results: Mapping[str, Results], store: RecordStore, number: int
) -> Iterator[Drawing]:
    """Draw the first `number` cases of each side of the split, and of volumes three planes."""
    for side, found in results.items():
        for score in found.scores[:number]:
            stored = store.load(score.case_id)
            _, masks = found.pairs[score.case_id].unpack()
            title = f"{score.case_id} ({side}), Dice " + ", ".join(
                f"{name} {score.dice[name]:.2f}" for name in anatomy.tumour_channels(found.target)
            )
            label = masks_to_label(masks[stored_box(stored)], found.target)
            figure = draw_overlay(stored, label, found.target, title)
            yield Drawing(f"{score.case_id}_overlay", _CASES, figure)
            if has_depth(stored):
                figure = draw_views(stored, label, found.target, title)
                yield Drawing(f"{score.case_id}_views", _CASES, figure)


def draw_training(provenance: Provenance, target: str) -> Iterator[Drawing]:
    """Draw loss, validation Dice and learning rate over the epochs, where there is a history."""
    if provenance.history:
        figure = draw_training_curves(provenance.history, provenance.best_epoch, target)
        yield Drawing("training_curves", _RUN, figure)


def values_by_class(scores: Sequence[CaseScore], metric: str) -> dict[str, list[float]]:
    """Return the values of a metric, one per case, of each class."""
    return {n: [s.classes[n].values[metric] for s in scores] for n in scores[0].classes}


def _scores(results: Results) -> Iterator[Drawing]:
    scores = results.scores
    for metric, title, label in (
        ("dice", "Dice per class", "Dice"),
        ("hd95", "HD95 per class", "HD95 [mm], small is good"),
        (
            "surface_dice",
            "Surface Dice per class",
            f"share of the surface within {results.settings.tolerance:g} mm",
        ),
    ):
        ruled = {
            name: [metric in score.classes[name].by_rule for score in scores]
            for name in scores[0].classes
        }
        figure = draw_metric_distribution(
            values_by_class(scores, metric), ruled, title, label, share=metric != "hd95"
        )
        yield Drawing(f"{metric}_distribution", _SCORES, figure)
    means = {name: row for name, row in results.means().items() if name != "mean"}
    labels = {"dice": "Dice", "hd95": "HD95 [mm]", "lesion_wise_dice": "lesion-wise Dice"}
    figure = draw_mean_intervals(means, labels, results.settings.confidence)
    yield Drawing("mean_intervals", _SCORES, figure)
    dice = values_by_class(scores, "dice")
    yield Drawing("cumulative_dice", _SCORES, draw_cumulative_dice(dice))
    figure = draw_case_heatmap([score.case_id for score in scores], dice)
    yield Drawing("case_heatmap", _SCORES, figure)
    volumes = values_by_class(scores, "volume_truth")
    yield Drawing("dice_against_volume", _SCORES, draw_dice_against_volume(volumes, dice))


def _cases(results: Results, provenance: Provenance) -> Iterator[Drawing]:
    target, colours = results.target, class_colours(scored_classes(results.target))
    for rank, score in ranked_cases(results.scores).items():
        truth, masks = results.pairs[score.case_id].unpack()
        spacing = results.pairs[score.case_id].spacing
        image = provenance.image_of(score.case_id)
        dice = ", ".join(f"{name} {value:.2f}" for name, value in score.dice.items())
        title = f"{rank} case, {score.case_id}: Dice {dice}"
        arguments = (image, truth, masks, target, spacing, title)
        yield Drawing(f"{rank}_planes", _CASES, draw_case_planes(*arguments))
        if truth.shape[0] > 1:
            yield Drawing(f"{rank}_slices", _CASES, draw_case_slices(*arguments))
            pairs = {name: (t, p) for name, t, p in class_pairs(truth, masks, target)}
            name = "WT" if "WT" in pairs else next(iter(pairs))
            title = f"{rank} case, {score.case_id}: area of {name}"
            figure = draw_slice_profile(*pairs[name], spacing, title, colours[name])
            yield Drawing(f"{rank}_profile", _CASES, figure)


def _errors(results: Results) -> Iterator[Drawing]:
    scores = results.scores
    classes = confusion_classes(results.target)
    figure = draw_confusion_matrix(results.confusion, classes)
    yield Drawing("confusion_matrix", _ERRORS, figure)
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
    yield Drawing("error_volumes", _ERRORS, figure)
    table = {m: [row[m] for row in rows] for m in _CORRELATED}
    figure = draw_metric_correlation(table, f"Which metrics of {whole} agree")
    yield Drawing("metric_correlation", _ERRORS, figure)
    figure = draw_precision_against_recall(
        values_by_class(scores, "precision"), values_by_class(scores, "recall")
    )
    yield Drawing("precision_against_recall", _ERRORS, figure)


def _overlap(row: dict[str, float]) -> float:
    """Return the mL that are in both masks."""
    total = row["volume_truth"] + row["volume_prediction"]
    one_empty = min(row["volume_truth"], row["volume_prediction"]) == 0
    return 0.0 if one_empty else row["dice"] * total / 2


def _volumes(results: Results) -> Iterator[Drawing]:
    scores = results.scores
    truth, predicted = (values_by_class(scores, f"volume_{w}") for w in ("truth", "prediction"))
    yield Drawing("volume_agreement", _VOLUMES, draw_volume_agreement(truth, predicted))
    yield Drawing("bland_altman", _VOLUMES, draw_bland_altman(truth, predicted))
    counts = {
        name: {
            kind: float(np.nansum([s.classes[name].values[f"lesions_{kind}"] for s in scores]))
            for kind in ("found", "missed", "invented")
        }
        for name in scores[0].classes
    }
    yield Drawing("lesion_counts", _VOLUMES, draw_lesion_counts(counts))
    lesions = {n: [x for s in scores for x in s.classes[n].lesions] for n in scores[0].classes}
    figure = draw_lesion_sizes(
        {name: [lesion.volume for lesion in found] for name, found in lesions.items()},
        {name: [lesion.dice for lesion in found] for name, found in lesions.items()},
    )
    yield Drawing("lesion_sizes", _VOLUMES, figure)


def _probabilities(results: Results) -> Iterator[Drawing]:
    counts = results.probabilities
    if not counts:
        return
    where = "Every voxel of the brain, of all cases."
    softmax = anatomy.ACTIVATIONS[results.target] == "softmax"
    yield Drawing("calibration_curve", _PROBABILITIES, draw_calibration_curve(counts), where)
    figure = draw_precision_recall_curve(counts)
    yield Drawing("precision_recall_curve", _PROBABILITIES, figure, where)
    yield Drawing("roc_curve", _PROBABILITIES, draw_roc_curve(counts), where)
    note = " The network takes the most probable class, not a threshold." if softmax else ""
    yield Drawing("threshold_sweep", _PROBABILITIES, draw_threshold_sweep(counts), where + note)


def _run(results: Results, provenance: Provenance) -> Iterator[Drawing]:
    yield from draw_training(provenance, results.target)
    seconds = [score.seconds for score in results.scores]
    if np.isfinite(seconds).all():
        figure = draw_inference_time(seconds, [score.depth for score in results.scores])
        yield Drawing("inference_time", _RUN, figure)
