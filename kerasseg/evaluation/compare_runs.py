"""`kerasseg compare RUN RUN…`: runs on the cases that all of them have, with tables and a page."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kerasseg import anatomy
from kerasseg.config.evaluation import MetricsSection
from kerasseg.errors import UserError
from kerasseg.evaluation.evaluate_runs import describe_inference, evaluate_run
from kerasseg.evaluation.report import describe_methods
from kerasseg.evaluation.results import Results
from kerasseg.evaluation.scores import CaseScore, scored_classes
from kerasseg.evaluation.statistics import Means, limits_of, means_as_json, summarise
from kerasseg.figures.runs import draw_run_curves
from kerasseg.figures.scores import draw_paired_differences, draw_run_means
from kerasseg.figures.volumes import ComparedCase, draw_same_slices
from kerasseg.files import make_folder, write_csv, write_json
from kerasseg.metrics.case_metrics import unit_of
from kerasseg.metrics.statistics import MeanInterval, PairedDifference, compare_paired
from kerasseg.page import Drawing, format_value, write_figures, write_page
from kerasseg.run import Run
from kerasseg.targets import convert_masks

COMPARED = (
    "dice",
    "iou",
    "precision",
    "recall",
    "hd95",
    "surface_dice",
    "lesion_wise_dice",
    "volume_error_absolute",
)
"""Metrics of the tables; `comparison.csv` has all."""
_DRAWN = 6
"""Cases whose slices are drawn next to each other: those on which the runs differ most."""

_ELSEWHERE = {
    "U-Net": (0.87, 0.79, 0.89, 0.86, 12),
    "SAM, fine-tuned": (0.83, 0.74, 0.85, 0.82, 89),
}
"""Dice, IoU, precision, recall and milliseconds per slice that were given for FLAIR slices of
another data set, to be shown beside a SAM."""

ImageOf = Callable[[str], np.ndarray | None]
"""Case id -> one modality (D, H, W) of its scan, if it is known."""


def compare_runs(runs: Sequence[Run], split: str, output: Path) -> Path:
    """Evaluate two or more runs and write one page about them.

    Returns the page. Raises `UserError` if there are fewer than two runs, or they have no case or
    no class in common.

    Args:
        runs: the runs; the first is what the others are compared with, and all are scored by its
            section `metrics`. A run may be there again with other overrides.
    """
    if len({(run.folder.resolve(), run.overrides) for run in runs}) < max(2, len(runs)):
        raise UserError(
            "compare: name two or more different run folders, or one of them again with other "
            "settings behind it: kerasseg compare RUN RUN 'evaluation.flips=[width]'."
        )
    _check_common(runs, split)
    _check_prompts(runs)
    settings = runs[0].experiment.metrics
    found = []
    for run in runs:
        experiment = run.experiment.model_copy(update={"metrics": settings})
        found.append(evaluate_run(replace(run, experiment=experiment), split))
    results = {name: pair[0] for name, pair in zip(_names(runs), found, strict=True)}
    comparison = compare({n: r.scores for n, r in results.items()}, settings)
    make_folder(output / "figures", "--output")
    figures = _figures(comparison, results, found[0][1].image_of, runs)
    drawings = write_figures(output / "figures", figures, "--output")
    summary = _as_json(comparison, results, runs, split)
    write_json(output / "comparison.json", summary, "--output")
    prompts = {name: result.prompt for name, result in results.items()}
    _write_csv(output / "comparison.csv", comparison, prompts)
    return write_page(
        output / "report.html",
        "comparison.html",
        "--output",
        summary=summary,
        comparison=comparison,
        metrics=COMPARED,
        methods=describe_methods(settings),
        drawings=drawings,
    )


@dataclass(frozen=True)
class Comparison:
    """Runs on the cases that all of them have.

    Attributes:
        names: the runs; the first is what the others are compared with.
        classes: the classes that all of them have.
        scores: run -> scores of the cases, in the same order.
        means: run -> class -> metric -> mean and interval.
        differences: other run -> class -> metric -> that run minus the first one.
        averaged: the classes of a case's mean Dice, the same for every run.
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    scores: dict[str, list[CaseScore]]
    means: dict[str, Means]
    differences: dict[str, dict[str, dict[str, PairedDifference]]]
    averaged: tuple[str, ...]

    def mean_dice(self, score: CaseScore) -> float:
        """Return the mean Dice of a case; NaN where a class does not count."""
        return float(np.mean([score.classes[name].values["dice"] for name in self.averaged]))


def compare(scores: dict[str, list[CaseScore]], settings: MetricsSection) -> Comparison:
    """Compare the scores of runs, by their names, in the cases and classes that all have."""
    names = tuple(scores)
    by_id = {name: {score.case_id: score for score in scores[name]} for name in names}
    common = [c for c in by_id[names[0]] if all(c in by_id[name] for name in names)]
    ordered = {name: [by_id[name][case_id] for case_id in common] for name in names}
    first = ordered[names[0]]
    classes = [c for c in first[0].classes if all(c in ordered[n][0].classes for n in names)]
    patients = [score.patient_id or score.case_id for score in first]
    differences = {
        name: {
            c: {
                metric: compare_paired(
                    [score.classes[c].values[metric] for score in first],
                    [score.classes[c].values[metric] for score in ordered[name]],
                    patients=patients,
                    resamples=settings.resamples,
                    confidence=settings.confidence,
                    limits=limits_of(metric),
                )
                for metric in first[0].classes[c].values
            }
            for c in classes
        }
        for name in names[1:]
    }
    means = {
        name: {c: row for c, row in summarise(ordered[name], settings).items() if c in classes}
        for name in names
    }
    # The mean column of one target is not that of another: WT, TC, ET against NCR, ED, ET.
    averaged = tuple(anatomy.SUBREGIONS if "NCR" in classes else classes)
    return Comparison(names, tuple(classes), ordered, means, differences, averaged)


def _seconds_per_slice(results: Results) -> float:
    """Return the median time of a slice, without the first case, which holds the tracing."""
    seconds = [score.seconds / score.depth for score in results.scores]
    return round(float(np.median(seconds[1:] or seconds)), 6)


def _figures(
    comparison: Comparison, results: Mapping[str, Results], image_of: ImageOf, runs: Sequence[Run]
) -> Iterator[Drawing]:
    for metric, label in (("dice", "Dice"), ("hd95", "HD95 [mm]")):
        rows: dict[str, dict[str, MeanInterval]] = {
            name: {c: means[c][metric] for c in comparison.classes}
            for name, means in comparison.means.items()
        }
        yield Drawing(f"{metric}_means", "Means", draw_run_means(rows, label))
    first = comparison.names[0]
    for number, (name, classes) in enumerate(comparison.differences.items(), start=2):
        for metric, label in (("dice", "Dice"), ("hd95", "HD95 [mm]")):
            chosen = {c: classes[c][metric] for c in comparison.classes}
            figure = draw_paired_differences(chosen, first, name, label)
            yield Drawing(f"{metric}_differences_{number}", "Paired differences", figure)
    cases = _compared_cases(comparison, results, image_of)
    if cases:
        caption = f"The {len(cases)} cases on which the runs differ most; outlines."
        figure = draw_same_slices(cases, _drawn_target(results))
        yield Drawing("same_slices", "The same slices", figure, caption)
    histories = {name: run.history for name, run in zip(comparison.names, runs, strict=True)}
    if any(histories.values()):
        caption = "Losses of different formulas do not compare."
        figure = draw_run_curves(histories)
        yield Drawing("training_curves", "Training", figure, caption)


def _drawn_target(results: Mapping[str, Results]) -> str:
    targets = {result.target for result in results.values()}
    if len(targets) == 1:
        return targets.pop()
    return "binary" if "binary" in targets else "regions"


def _compared_cases(
    comparison: Comparison, results: Mapping[str, Results], image_of: ImageOf
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
        remarks = {
            name: f"Dice {table[row, place]:.2f}" for row, name in enumerate(comparison.names)
        }
        image = image_of(case_id)
        cases.append(ComparedCase(case_id, image, first.unpack()[0], first.spacing, masks, remarks))
    return cases


def _as_json(
    comparison: Comparison, results: Mapping[str, Results], runs: Sequence[Run], split: str
) -> dict[str, Any]:
    settings = runs[0].experiment.metrics
    fingerprints = [run.data_fingerprint for run in runs]
    warnings = []
    if len(set(fingerprints)) > 1:
        warnings.append("The runs were made on different data: " + ", ".join(fingerprints) + ".")
    inference = [describe_inference(run.experiment) for run in runs]
    arguments = [text for run in runs for text in (str(run.folder), *run.overrides)]
    sizes = {len(run.split[split]) for run in runs}
    if sizes != {len(comparison.scores[comparison.names[0]])}:
        warnings.append("The runs have different cases; only those that all have are compared.")
    return {
        "split": split,
        "runs": {
            name: {
                "folder": str(run.folder),
                "overrides": list(run.overrides),
                "test_time_augmentation": used["Test-time augmentation"],
                "postprocessing": used["Post-processing"],
                "prompt": used.get("Prompt", ""),
                "task": run.summary.get("task", run.experiment.model.target),
                "parameters": run.summary.get("parameters"),
                "trained_parameters": run.summary.get("trained_parameters"),
                "peak_memory_gib": run.summary.get("peak_memory_gib"),
                "seconds_per_slice": _seconds_per_slice(results[name]),
                "data_fingerprint": run.data_fingerprint,
            }
            for name, run, used in zip(comparison.names, runs, inference, strict=True)
        },
        "cases": len(comparison.scores[comparison.names[0]]),
        "warnings": warnings,
        "elsewhere": _ELSEWHERE if any(used.get("Prompt") for used in inference) else {},
        "confidence": settings.confidence,
        "resamples": settings.resamples,
        "means": {name: means_as_json(means) for name, means in comparison.means.items()},
        "differences": {
            name: {
                c: {
                    metric: {
                        **means_as_json({c: {metric: d.mean}})[c][metric],
                        "p": None if np.isnan(d.p) else d.p,
                        "p_in_words": d.formatted_p,
                    }
                    for metric, d in row.items()
                }
                for c, row in classes.items()
            }
            for name, classes in comparison.differences.items()
        },
        "command": f"kerasseg compare {shlex.join(arguments)} --split {split}",
    }


def describe_comparison(summary: Mapping[str, Any]) -> list[str]:
    """Return the lines that `kerasseg compare` prints of `comparison.json`: means, differences."""
    lines = []
    first = next(iter(summary["means"]))
    for metric, heading in (("dice", "Dice"), ("hd95", "HD95 [mm]")):
        lines.append(f"{heading} of {summary['cases']} {summary['split']} case(s)")
        for name, classes in summary["means"].items():
            values = [f"{c} {format_value(row[metric]['mean'])}" for c, row in classes.items()]
            lines.append(f"  {name}: {'  '.join(values)}")
        for name, classes in summary["differences"].items():
            values = [
                f"{c} {row[metric]['mean']:+.3f} (p {row[metric]['p_in_words']})"
                for c, row in classes.items()
                if row[metric]["mean"] is not None
            ]
            lines.append(f"  {name} minus {first}: {'  '.join(values)}")
    return lines


def _write_csv(path: Path, comparison: Comparison, prompts: Mapping[str, str]) -> None:
    heading = ["run", "class", "metric", "unit", "mean", "low", "high", "cases"]
    heading += ["difference", "difference_low", "difference_high", "p", "prompt"]
    rows: list[list[Any]] = [heading]
    for name in comparison.names:
        for c in comparison.classes:
            for metric, value in comparison.means[name][c].items():
                row: list[Any] = [name, c, metric, unit_of(metric)]
                row += [f"{v:.6f}" for v in (value.mean, value.low, value.high)]
                row.append(value.cases)
                if name in comparison.differences:
                    found = comparison.differences[name][c][metric]
                    numbers = (found.mean.mean, found.mean.low, found.mean.high, found.p)
                    row += [f"{v:.6g}" for v in numbers]
                else:
                    row += [""] * 4
                rows.append([*row, prompts[name]])
    write_csv(path, rows, "--output")


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


def _check_prompts(runs: Sequence[Run]) -> None:
    """Refuse to show scores of prompts from the truth beside scores that need none."""
    told = [run for run in runs if run.experiment.model.sam.prompt_of_truth]
    others = [run for run in runs if run not in told]
    if told and others:
        raise UserError(
            f"compare: {told[0].folder} gets the {told[0].experiment.model.sam.described_prompt}, "
            f"and {others[0].folder} has to find the tumour itself, so that their scores do not "
            "compare: leave one out, or give it model.sam.prompt=none or model.sam.boxes_from=RUN."
        )


def _names(runs: Sequence[Run]) -> list[str]:
    folders = {run.folder.resolve() for run in runs}
    short = len({folder.name for folder in folders}) == len(folders)
    names = [run.folder.resolve().name if short else str(run.folder) for run in runs]
    changed = [[text.partition(".")[2] for text in run.overrides] for run in runs]
    return [", ".join([name, *texts]) for name, texts in zip(names, changed, strict=True)]
