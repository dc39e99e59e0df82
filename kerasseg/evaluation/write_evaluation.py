"""The folder of an evaluation: tables, figures, a page."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerasseg.errors import storage_error
from kerasseg.evaluation.about import About
from kerasseg.evaluation.calibration import calibration
from kerasseg.evaluation.confusion import confusion_classes
from kerasseg.evaluation.draw_figures import draw_figures
from kerasseg.evaluation.figures.style import shades
from kerasseg.evaluation.metric_settings import empty_rule_in_words
from kerasseg.evaluation.page import environment, write_figures
from kerasseg.evaluation.peak_memory import peak_memory
from kerasseg.evaluation.results import Results
from kerasseg.evaluation.scores import columns_in_words, write_metrics
from kerasseg.evaluation.summary import (
    Means,
    count_by_rule,
    means_as_json,
    slicewise_means,
    summarise,
)
from kerasseg.metrics.case_metrics import UNITS
from kerasseg.write_aside import write_aside

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
    with write_aside(folder / "summary.json", setting) as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    page = (
        environment()
        .get_template("evaluation.html")
        .render(
            about=about,
            summary=summary,
            scores=results.scores,
            classes=list(means),
            shades=shades(means),
            units=dict(UNITS),
            headline=HEADLINE,
            meaning=columns_in_words(results.target),
            empty_rule=empty_rule_in_words(about.settings),
            drawings=drawings,
        )
    )
    with write_aside(folder / "report.html", setting) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return folder / "report.html"


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
        write_aside(path, setting) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(heading)
        writer.writerows(rows)
