"""The page, the summary and the tables of an evaluation, of a run, several runs or anybody's files.

Training writes them at its end for the validation and the test cases, `kerasseg evaluate` later for
any side of the split.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerasseg.config.evaluation import MetricsSection
from kerasseg.evaluation.report_figures import draw_figures
from kerasseg.evaluation.results import Provenance, Results, confusion_classes
from kerasseg.evaluation.scores import (
    CaseScore,
    describe_columns,
    describe_empty_rule,
    mean_scores,
    score_columns,
    write_metrics,
)
from kerasseg.evaluation.statistics import count_by_rule, mean_dice, means_as_json, slicewise_means
from kerasseg.figures.style import class_colours
from kerasseg.files import make_folder, write_csv, write_json
from kerasseg.metrics.calibration import calibration
from kerasseg.metrics.case_metrics import unit_of
from kerasseg.metrics.lesions import LesionSettings
from kerasseg.page import Drawing, format_value, write_figures, write_page
from kerasseg.tensorflow_setup import peak_memory

_SHOWN = 5
"""Worst cases, and best ones, that are listed before the figures."""
HEADLINE = ("dice", "iou", "hd95", "surface_dice", "lesion_wise_dice", "precision", "recall")
"""Metrics of the page's first table; a second one has all."""


def evaluation_summary(results: Mapping[str, Results]) -> dict[str, Any]:
    """Return what `summary.json` holds of the scores, by side of the split.

    `seconds_per_volume` and `seconds_per_slice` are medians, as the first case may hold the
    compilation; `inference_seconds` is a mean. They are null where no time is known.
    """
    sides = {name: found for name, found in results.items() if found.scores}
    settings = [found.settings for found in sides.values()]
    summary: dict[str, Any] = {
        "cases": {name: len(found.scores) for name, found in sides.items()},
        "patients": {
            name: len({score.patient_id or score.case_id for score in found.scores})
            for name, found in sides.items()
        },
        "dice": {name: mean_scores(found.scores) for name, found in sides.items()},
        "metrics": {name: means_as_json(found.means()) for name, found in sides.items()},
        "decided_by_empty_rule": {n: count_by_rule(found.scores) for n, found in sides.items()},
        "slicewise": {name: slicewise_means(found.scores) for name, found in sides.items()},
        "calibration_error": {
            name: {
                channel: round(calibration(counts).error, 6)
                for channel, counts in found.probabilities.items()
            }
            for name, found in sides.items()
        },
        "peak_memory_gib": round(peak_memory() / 2**30, 2),
    }
    if prompts := {name: found.prompt for name, found in sides.items() if found.prompt}:
        summary["prompt"] = prompts
    if settings:
        summary |= {"confidence": settings[0].confidence, "resamples": settings[0].resamples}
    for key in ("inference_seconds", "seconds_per_volume", "seconds_per_slice"):
        summary[key] = {name: _times(found)[key] for name, found in sides.items()}
    return summary


def describe_scores(summary: Mapping[str, Any]) -> list[str]:
    """Return the lines that a verb prints of what `summary.json` holds: Dice and HD95."""
    lines = []
    for side, means in summary["dice"].items():
        kind = summary["case_kind"]
        what = "pair(s) of files" if side == "files" else f"whole {side} {kind}(s)"
        distances = {name: summary["metrics"][side][name]["hd95"]["mean"] for name in means}
        for metric, values in (("Dice", means), ("HD95 [mm]", distances)):
            numbers = "  ".join(f"{name} {format_value(v)}" for name, v in values.items())
            lines.append(f"{metric} of {summary['cases'][side]} {what}: {numbers}")
    return lines


def describe_methods(settings: MetricsSection) -> dict[str, str]:
    """Return how cases are scored, by heading, for a reader of the scores."""
    lesions = LesionSettings.of_challenge(settings.lesions)
    return {
        "Surface Dice": f"share of both surfaces within {settings.tolerance:g} mm of the other",
        "HD95": "the larger of the two directed 95th percentiles of the distances of surfaces",
        "Lesion-wise scores": f"rules of BraTS 2023, {settings.lesions}: the truth is dilated by "
        f"{lesions.dilation} voxel(s), and lesions of more than {lesions.smallest:g} mm³ count",
        "Intervals": f"{100 * settings.confidence:g} %, percentiles of {settings.resamples:,} "
        "bootstrap resamples of the patients, widened by Student's t for small samples, cut off at "
        "the least and the largest value that a metric can have",
    }


def _times(results: Results) -> dict[str, float | None]:
    seconds = np.array([score.seconds for score in results.scores])
    slices = np.array([score.depth for score in results.scores])
    times = {
        "inference_seconds": seconds.mean(),
        "seconds_per_volume": np.median(seconds),
        "seconds_per_slice": np.median(seconds / slices),
    }
    return {k: round(float(v), 6) if np.isfinite(v) else None for k, v in times.items()}


def write_report(
    folder: Path,
    results: Mapping[str, Results],
    summary: Mapping[str, Any],
    provenance: Provenance,
    drawings: Iterable[Drawing],
    setting: str,
) -> Path:
    """Write `metrics.csv`, `summary.json`, `figures/` and the page that holds the figures.

    Returns the page, `report.html`.

    Args:
        folder: where they are written; it is made if it is missing.
        results: side of the split -> the results of its cases.
        summary: what `summary.json` holds; `evaluation_summary` and more.
        provenance: where cases and predictions come from.
        drawings: the figures of the page, drawn one after the other.
    """
    make_folder(folder / "figures", setting)
    results = {name: found for name, found in results.items() if found.scores}
    first = next(iter(results.values()))
    scores = [score for found in results.values() for score in found.scores]
    write_metrics(folder / "metrics.csv", scores, first.target, setting, first.prompt)
    sections = write_figures(folder / "figures", drawings, setting)
    write_json(folder / "summary.json", summary, setting)
    return write_page(
        folder / "report.html",
        "report.html",
        setting,
        provenance=provenance,
        summary=summary,
        sides=list(results),
        ranked={name: _worst_and_best(found.scores) for name, found in results.items()},
        scores=scores,
        classes=list(scores[0].classes),
        dice_columns=score_columns(first.target),
        shades=class_colours(scores[0].classes),
        units={m: unit_of(m) for m in next(iter(scores[0].classes.values())).values},
        headline=HEADLINE,
        meaning=describe_columns(first.target),
        methods=describe_methods(first.settings),
        empty_rule=describe_empty_rule(first.settings),
        drawings=sections,
    )


def _worst_and_best(scores: Sequence[CaseScore]) -> list[CaseScore | None]:
    """Return the cases with the lowest and the highest Dice, and None for those between."""
    ordered = sorted((s for s in scores if np.isfinite(mean_dice(s))), key=mean_dice)
    if len(ordered) <= 2 * _SHOWN:
        return list(ordered)
    return [*ordered[:_SHOWN], None, *ordered[-_SHOWN:]]


def write_evaluation(folder: Path, results: Results, provenance: Provenance, setting: str) -> Path:
    """Write the tables, all figures and the page of one set of cases; returns the page.

    Args:
        folder: where they are written; it is made if it is missing.
        results: the results of the cases, all of one side of the split.
        provenance: where cases and predictions come from.
    """
    cases = {results.scores[0].split: results}
    summary = {
        "title": provenance.title,
        "case_kind": provenance.case_kind,
        "target": results.target,
        **evaluation_summary(cases),
        "facts": {**provenance.facts, **describe_methods(results.settings)},
        "command": next(iter(provenance.commands.values())),
    }
    write_tables(folder, results, setting)
    drawings = draw_figures(results, provenance)
    return write_report(folder, cases, summary, provenance, drawings, setting)


def write_tables(folder: Path, results: Results, setting: str) -> None:
    """Write `summary.csv`, `slicewise_dice.csv` and `confusion_matrix.csv` of one set of cases."""
    make_folder(folder, setting)
    by_rule = count_by_rule(results.scores)
    rows: list[Sequence[Any]] = []
    for name, row in results.means().items():
        for metric, mean in row.items():
            values = [score.value(name, metric) for score in results.scores]
            finite = np.array([value for value in values if np.isfinite(value)])
            median = float(np.median(finite)) if finite.size else float("nan")
            deviation = float(finite.std(ddof=1)) if finite.size > 1 else float("nan")
            numbers = (mean.mean, mean.low, mean.high, median, deviation)
            cells = [f"{number:.6f}" for number in numbers]
            decided = by_rule.get(f"{metric}_{name}", 0)
            cells += [str(mean.cases), str(decided), *([results.prompt] if results.prompt else [])]
            rows.append([name, metric, unit_of(metric), *cells])
    heading = ["class", "metric", "unit", "mean", "low", "high", "median", "standard_deviation"]
    heading += ["cases", "decided_by_empty_rule", *(["prompt"] if results.prompt else [])]
    write_csv(folder / "summary.csv", [heading, *rows], setting)
    rows = [
        [score.case_id, name, f"{dice.mean:.6f}", dice.slices]
        for score in results.scores
        for name, dice in score.slices.items()
    ]
    heading = ["case_id", "class", "slicewise_dice", "slices"]
    write_csv(folder / "slicewise_dice.csv", [heading, *rows], setting)
    classes = confusion_classes(results.target)
    rows = [[name, *row] for name, row in zip(classes, results.confusion.tolist(), strict=True)]
    heading = ["true \\ predicted [voxels]", *classes]
    write_csv(folder / "confusion_matrix.csv", [heading, *rows], setting)
