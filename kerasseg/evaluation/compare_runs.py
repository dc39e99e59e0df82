"""`kerasseg compare RUN RUN…`: runs on the same cases.

The folder of a comparison: tables, figures, a page.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerasseg.config.evaluation import MetricsSection
from kerasseg.errors import UserError, storage_error
from kerasseg.evaluation.evaluate_runs import evaluate_run
from kerasseg.evaluation.results import Results
from kerasseg.evaluation.scores import scored_classes
from kerasseg.evaluation.statistics import Comparison, MeanInterval, compare, means_as_json
from kerasseg.evaluation.write_evaluation import About
from kerasseg.figures.scores import draw_paired_differences, draw_run_means
from kerasseg.figures.volumes import ComparedCase, draw_same_slices
from kerasseg.files import atomic_write
from kerasseg.metrics.case_metrics import UNITS
from kerasseg.page import Drawing, write_figures, write_page
from kerasseg.run import Run, read_run
from kerasseg.targets import convert_masks

COMPARED = ("dice", "hd95", "surface_dice", "lesion_wise_dice", "volume_error_absolute")
"""Metrics of the tables; `comparison.csv` has all."""
_DRAWN = 6
"""Cases whose slices stand next to each other: those on which the runs differ most."""


def write_comparison(
    comparison: Comparison,
    results: dict[str, Results],
    about: About,
    runs: Sequence[Run],
    split: str,
    output: Path,
    settings: MetricsSection,
) -> Path:
    """Write tables, figures and the page that holds them into `output`; returns the page."""
    try:
        (output / "figures").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, f"Making {output}", "--output") from error
    figures = _figures(comparison, results, about)
    drawings = write_figures(output / "figures", figures, "--output")
    summary = _as_json(comparison, runs, split, settings)
    with atomic_write(output / "comparison.json", "--output") as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    _write_csv(output / "comparison.csv", comparison)
    return write_page(
        output / "report.html",
        "comparison.html",
        "--output",
        summary=summary,
        comparison=comparison,
        metrics=COMPARED,
        units=dict(UNITS),
        drawings=drawings,
    )


def _figures(
    comparison: Comparison, results: dict[str, Results], about: About
) -> Iterator[Drawing]:
    for metric, label in (("dice", "Dice"), ("hd95", "HD95 [mm]")):
        rows: dict[str, dict[str, MeanInterval]] = {
            name: {c: means[c][metric] for c in comparison.classes}
            for name, means in comparison.means.items()
        }
        yield Drawing(f"{metric}_means", "Means", "", draw_run_means(rows, label))
    first = comparison.names[0]
    for number, (name, classes) in enumerate(comparison.differences.items(), start=2):
        for metric, label in (("dice", "Dice"), ("hd95", "HD95 [mm]")):
            chosen = {c: classes[c][metric] for c in comparison.classes}
            figure = draw_paired_differences(chosen, first, name, label)
            yield Drawing(f"{metric}_differences_{number}", "Paired differences", "", figure)
    cases = _compared_cases(comparison, results, about)
    if cases:
        words = f"The {len(cases)} cases on which the runs differ most; outlines."
        figure = draw_same_slices(cases, _drawn_target(results))
        yield Drawing("same_slices", "The same slices", words, figure)


def _drawn_target(results: dict[str, Results]) -> str:
    targets = {result.target for result in results.values()}
    if len(targets) == 1:
        return targets.pop()
    return "binary" if "binary" in targets else "regions"


def _compared_cases(
    comparison: Comparison, results: dict[str, Results], about: About
) -> list[ComparedCase]:
    table = np.array(
        [[comparison.mean_dice(s) for s in comparison.scores[n]] for n in comparison.names]
    )
    spread = np.nan_to_num(table.max(axis=0) - table.min(axis=0))
    target, cases = _drawn_target(results), []
    for place in np.argsort(-spread, kind="stable")[:_DRAWN]:
        case_id = comparison.scores[comparison.names[0]][place].case_id
        pairs = {name: results[name].pairs[case_id] for name in comparison.names}
        if len({pair.shape[:3] for pair in pairs.values()}) > 1:
            continue  # the runs have stores of different grids
        first = pairs[comparison.names[0]]
        masks = {
            name: convert_masks(pair.unpack()[1], results[name].target, target)
            for name, pair in pairs.items()
        }
        dice = dict(zip(comparison.names, table[:, place], strict=True))
        remarks = {name: f"Dice {value:.2f}" for name, value in dice.items()}
        image = about.image_of(case_id)
        cases.append(ComparedCase(case_id, image, first.unpack()[0], first.spacing, masks, remarks))
    return cases


def _as_json(
    comparison: Comparison, runs: Sequence[Run], split: str, settings: MetricsSection
) -> dict[str, Any]:
    prints = [str(run.environment.get("data_fingerprint")) for run in runs]
    warnings = []
    if len(set(prints)) > 1:
        warnings.append("The runs were made on different data: " + ", ".join(prints) + ".")
    sizes = {len(run.split[split]) for run in runs}
    if sizes != {len(comparison.scores[comparison.names[0]])}:
        warnings.append("The runs have different cases; only those that all have are compared.")
    return {
        "split": split,
        "runs": {
            name: {
                "folder": str(run.folder),
                "task": run.summary.get("task", run.experiment.model.target),
                "parameters": run.summary.get("parameters"),
                "data_fingerprint": prints[number],
            }
            for number, (name, run) in enumerate(zip(comparison.names, runs, strict=True))
        },
        "cases": len(comparison.scores[comparison.names[0]]),
        "warnings": warnings,
        "confidence": settings.confidence,
        "resamples": settings.resamples,
        "means": {name: means_as_json(means) for name, means in comparison.means.items()},
        "differences": {
            name: {
                c: {
                    metric: {
                        **means_as_json({c: {metric: d.mean}})[c][metric],
                        "p": None if np.isnan(d.p) else d.p,
                        "p_in_words": d.p_in_words,
                    }
                    for metric, d in row.items()
                }
                for c, row in classes.items()
            }
            for name, classes in comparison.differences.items()
        },
        "command": f"kerasseg compare {' '.join(str(r.folder) for r in runs)} --split {split}",
    }


def _write_csv(path: Path, comparison: Comparison) -> None:
    heading = ["run", "class", "metric", "unit", "mean", "low", "high", "cases"]
    heading += ["difference", "difference_low", "difference_high", "p"]
    with (
        atomic_write(path, "--output") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(heading)
        for name in comparison.names:
            for c in comparison.classes:
                for metric, value in comparison.means[name][c].items():
                    row: list[Any] = [name, c, metric, UNITS[metric]]
                    row += [f"{v:.6f}" for v in (value.mean, value.low, value.high)]
                    row.append(value.cases)
                    if name in comparison.differences:
                        found = comparison.differences[name][c][metric]
                        numbers = (found.mean.mean, found.mean.low, found.mean.high, found.p)
                        row += [f"{v:.6g}" for v in numbers]
                    else:
                        row += [""] * 4
                    writer.writerow(row)


def compare_runs(
    folders: Sequence[Path],
    split: str,
    output: Path,
    settings: MetricsSection | None = None,
) -> Path:
    """Evaluate two or more runs and write one page about them into `output`.

    The first run is what the others are compared with. Raises `UserError` for fewer than two runs,
    and for runs that have no case or no class in common.
    """
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise UserError("compare: name two or more different run folders.")
    runs = [read_run(folder) for folder in folders]
    _check_common(runs, split)
    settings = settings or runs[0].experiment.metrics
    found = [evaluate_run(run, split, settings) for run in runs]
    names = _names(runs)
    results = {name: pair[0] for name, pair in zip(names, found, strict=True)}
    comparison = compare({n: r.scores for n, r in results.items()}, settings)
    return write_comparison(comparison, results, found[0][1], runs, split, output, settings)


def _check_common(runs: Sequence[Run], split: str) -> None:
    ids = [set(run.case_ids(split)) for run in runs]
    if not set.intersection(*ids):
        raise UserError(
            f"compare: {', '.join(str(run.folder) for run in runs)} have no {split} case in "
            "common: they were made with other splits. Name another side with --split, or, of "
            "folds, use kerasseg evaluate, which puts them together."
        )
    targets = [run.experiment.model.target for run in runs]
    if not set.intersection(*(set(scored_classes(target)) for target in targets)):
        raise UserError(
            f"compare: runs of the targets {', '.join(targets)} have no class in common."
        )


def _names(runs: Sequence[Run]) -> list[str]:
    names = [run.folder.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.folder) for run in runs]
