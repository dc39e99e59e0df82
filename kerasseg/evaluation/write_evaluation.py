"""The folder of an evaluation: tables, figures, a page.

What a report says beside its numbers.

Every figure of an evaluation.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kerasseg import anatomy
from kerasseg.config.evaluation import MetricsSection
from kerasseg.errors import storage_error
from kerasseg.evaluation.results import Results, calibration, confusion_classes
from kerasseg.evaluation.scores import (
    CaseScore,
    class_pairs,
    columns_in_words,
    empty_rule_in_words,
    scored_classes,
    write_metrics,
)
from kerasseg.evaluation.statistics import (
    Means,
    count_by_rule,
    means_as_json,
    ranked_cases,
    slicewise_means,
    summarise,
)
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
from kerasseg.figures.volumes import draw_case_planes, draw_case_slices, draw_slice_profile
from kerasseg.files import atomic_write
from kerasseg.metrics.case_metrics import UNITS
from kerasseg.page import Drawing, write_figures, write_page
from kerasseg.tensorflow_setup import peak_memory


def _no_image(case_id: str) -> np.ndarray | None:
    return None


@dataclass(frozen=True)
class About:
    """Where the cases and the predictions come from.

    title, kind:  of the page; what was evaluated in a few words
    facts:        heading -> words, shown above
    warnings:     what a reader of the scores must know
    command:      that gives this page again
    settings:     section `metrics`
    config, environment, history: of the run; empty where there is none
    best_epoch:   of the history
    image_of:     case id -> a modality (D, H, W) on the grid of the masks, air 0, or None
    """

    title: str
    kind: str
    command: str
    facts: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    settings: MetricsSection = field(default_factory=MetricsSection)
    config: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[dict[str, str]] = ()
    best_epoch: int = 0
    image_of: Callable[[str], np.ndarray | None] = _no_image


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
    target, colours = results.target, class_colours(scored_classes(results.target))
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
        figure = draw_training_curves(about.history, about.best_epoch, results.target)
        yield Drawing("training_curves", _RUN, "", figure)
    seconds = [score.seconds for score in results.scores]
    if np.isfinite(seconds).all():
        figure = draw_inference_time(seconds, [score.depth for score in results.scores])
        yield Drawing("inference_time", _RUN, "", figure)


HEADLINE = ("dice", "hd95", "surface_dice", "lesion_wise_dice", "precision", "recall")
"""Metrics of the first table."""


def write_evaluation(folder: Path, results: Results, about: About, setting: str) -> Path:
    """Write everything into `folder` and return `report.html`, which holds its figures.

    `setting` is the option that would move the folder elsewhere.
    """
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, f"Making {folder}", setting) from error
    means = summarise(results.scores, about.settings)
    write_metrics(folder / "metrics.csv", results.scores, results.target)
    _write_summary_csv(folder / "summary.csv", results, means, setting)
    _write_slices(folder / "slicewise_dice.csv", results, setting)
    _write_confusion(folder / "confusion_matrix.csv", results, setting)
    drawings = write_figures(folder / "figures", draw_figures(results, means, about), setting)
    summary = summary_of(results, means, about)
    with atomic_write(folder / "summary.json", setting) as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return write_page(
        folder / "report.html",
        "evaluation.html",
        setting,
        about=about,
        summary=summary,
        scores=results.scores,
        classes=list(means),
        shades=class_colours(means),
        units=dict(UNITS),
        headline=HEADLINE,
        meaning=columns_in_words(results.target),
        empty_rule=empty_rule_in_words(about.settings),
        drawings=drawings,
    )


def summary_of(results: Results, means: Means, about: About) -> dict[str, Any]:
    """What `summary.json` holds. Times are medians: the first case may hold the compilation."""
    seconds = np.array([score.seconds for score in results.scores])
    slices = np.array([score.depth for score in results.scores])
    timed = bool(seconds.size and np.isfinite(seconds).all())
    return {
        "title": about.title,
        "target": results.target,
        "cases": len(results.scores),
        "patients": len({score.patient_id or score.case_id for score in results.scores}),
        "metrics": means_as_json(means),
        "confidence": about.settings.confidence,
        "resamples": about.settings.resamples,
        "decided_by_empty_rule": count_by_rule(results.scores),
        "slicewise": slicewise_means(results.scores),
        "calibration_error": {
            name: round(calibration(counts).error, 6)
            for name, counts in results.probabilities.items()
        },
        "seconds_per_volume": round(float(np.median(seconds)), 4) if timed else None,
        "seconds_per_slice": round(float(np.median(seconds / slices)), 6) if timed else None,
        "seconds_in_all": round(float(seconds.sum()), 4) if timed else None,
        "peak_memory_gib": round(peak_memory() / 2**30, 2),
        "facts": dict(about.facts),
        "command": about.command,
    }


def _write_summary_csv(path: Path, results: Results, means: Means, setting: str) -> None:
    ruled = count_by_rule(results.scores)
    rows: list[Sequence[Any]] = []
    for name, row in means.items():
        for metric, value in row.items():
            numbers = [s.classes[name].values[metric] for s in results.scores]
            known = np.array([n for n in numbers if np.isfinite(n)])
            median = float(np.median(known)) if known.size else float("nan")
            deviation = float(known.std(ddof=1)) if known.size > 1 else float("nan")
            values = (value.mean, value.low, value.high, median, deviation)
            cells = [f"{v:.6f}" for v in values]
            by_rule = ruled.get(f"{metric}_{name}", 0)
            rows.append([name, metric, UNITS[metric], *cells, value.cases, by_rule])
    heading = ["class", "metric", "unit", "mean", "low", "high", "median", "standard_deviation"]
    _write_csv(path, [*heading, "cases", "decided_by_empty_rule"], rows, setting)


def _write_slices(path: Path, results: Results, setting: str) -> None:
    rows = [
        [score.case_id, name, f"{dice.mean:.6f}", dice.slices]
        for score in results.scores
        for name, dice in score.slices.items()
    ]
    _write_csv(path, ["case_id", "class", "slicewise_dice", "slices"], rows, setting)


def _write_confusion(path: Path, results: Results, setting: str) -> None:
    classes = confusion_classes(results.target)
    rows = [[name, *row] for name, row in zip(classes, results.confusion.tolist(), strict=True)]
    _write_csv(path, ["true \\ predicted [voxels]", *classes], rows, setting)


def _write_csv(
    path: Path, heading: Sequence[str], rows: Iterable[Sequence[Any]], setting: str
) -> None:
    with (
        atomic_write(path, setting) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(heading)
        writer.writerows(rows)
