"""Statistics over many cases: means with their intervals, and the cases worth looking at."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kerasseg.config.evaluation import MetricsSection
from kerasseg.evaluation.scores import CaseScore, SlicewiseDice
from kerasseg.metrics.case_metrics import UNITS
from kerasseg.metrics.statistics import MeanInterval, bootstrap_mean

Means = dict[str, dict[str, MeanInterval]]
"""Class, or `mean` over the channels -> metric -> mean over cases and its interval."""

_SHARES = frozenset(
    ("dice", "iou", "precision", "recall", "specificity", "surface_dice", "lesion_wise_dice")
)
_LEAST = {"volume_error": -math.inf, "volume_error_relative": -1.0}


def limits_of(metric: str) -> tuple[float, float]:
    """Return the least and the largest value that a metric can have; a user's has neither."""
    least = _LEAST.get(metric, 0.0) if metric in UNITS else -math.inf
    return least, 1.0 if metric in _SHARES else math.inf


def summarise(scores: Sequence[CaseScore], settings: MetricsSection, seed: int = 0) -> Means:
    """Compute mean and interval of each metric, over patients where they are known.

    The rows are those of `score_columns`: the classes, and the mean over the target's channels.
    """
    if not scores:
        return {}
    patients = [score.patient_id or score.case_id for score in scores]
    return {
        name: {
            metric: bootstrap_mean(
                [score.value(name, metric) for score in scores],
                patients=patients,
                resamples=settings.resamples,
                confidence=settings.confidence,
                seed=seed,
                limits=limits_of(metric),
            )
            for metric in next(iter(scores[0].classes.values())).values
        }
        for name in scores[0].dice
    }


def count_by_rule(scores: Sequence[CaseScore]) -> dict[str, int]:
    """Count the cases whose value `EmptyRule` decided, by `<metric>_<class>`, without zeros."""
    counts: dict[str, int] = {}
    for score in scores:
        for name, metrics in score.classes.items():
            for metric in metrics.by_rule:
                counts[f"{metric}_{name}"] = counts.get(f"{metric}_{name}", 0) + 1
    return counts


def slicewise_means(scores: Sequence[CaseScore]) -> dict[str, dict[str, float]]:
    """Return `slicewise_dice` over all axial slices of all cases, and `slices`, of each class."""
    totals: dict[str, SlicewiseDice] = {}
    for score in scores:
        for name, dice in score.slices.items():
            totals[name] = totals.get(name, SlicewiseDice()) + dice
    return {n: {"slicewise_dice": t.mean, "slices": t.slices} for n, t in totals.items()}


def means_as_json(means: Means) -> dict[str, Any]:
    """Return means as `summary.json` holds them; a number that does not exist is null."""
    return {
        name: {metric: _as_json(interval) for metric, interval in row.items()}
        for name, row in means.items()
    }


def _as_json(interval: MeanInterval) -> dict[str, float | int | None]:
    values = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    rounded = {k: None if math.isnan(v) else round(v, 6) for k, v in values.items()}
    return {**rounded, "cases": interval.cases}


def mean_dice(score: CaseScore) -> float:
    """Return a case's mean Dice over the target's channels; NaN where none counts."""
    return score.dice["mean"] if "mean" in score.dice else next(iter(score.dice.values()))


def ranked_cases(scores: Sequence[CaseScore]) -> dict[str, CaseScore]:
    """Return the worst, the median and the best case by mean Dice, each case once.

    A single case is called `only`. Cases where the empty rule decided everything show nothing and
    are left out, unless there are no others.
    """
    shown = [s for s in scores if any(c.empty == "neither" for c in s.classes.values())]
    rows = [s for s in shown or scores if np.isfinite(mean_dice(s))]
    rows.sort(key=mean_dice)
    if not rows:
        return {}
    if len(rows) == 1:
        return {"only": rows[0]}
    chosen = {"worst": rows[0], "median": rows[(len(rows) - 1) // 2], "best": rows[-1]}
    found: dict[str, CaseScore] = {}
    for rank in ("worst", "best", "median"):
        if chosen[rank].case_id not in {score.case_id for score in found.values()}:
            found[rank] = chosen[rank]
    return {rank: found[rank] for rank in ("worst", "median", "best") if rank in found}
