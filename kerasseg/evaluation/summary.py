"""Means over cases with their intervals, and how often a rule stood in for a measurement."""

import math
from collections.abc import Sequence
from typing import Any

from kerasseg.evaluation.bootstrap import MeanInterval, bootstrap_mean
from kerasseg.evaluation.scores import CaseScore
from kerasseg.evaluation.slicewise_dice import SlicewiseDice
from kerasseg.settings.metrics import MetricsSection

Means = dict[str, dict[str, MeanInterval]]
"""Class -> metric -> mean over cases."""


def summarise(scores: Sequence[CaseScore], settings: MetricsSection, seed: int = 0) -> Means:
    """Mean and interval of each class and metric, by patients where they are known."""
    if not scores:
        return {}
    patients = [score.patient_id or score.case_id for score in scores]
    return {
        name: {
            metric: bootstrap_mean(
                [score.classes[name].values[metric] for score in scores],
                patients=patients,
                resamples=settings.resamples,
                confidence=settings.confidence,
                seed=seed,
            )
            for metric in scores[0].classes[name].values
        }
        for name in scores[0].classes
    }


def count_by_rule(scores: Sequence[CaseScore]) -> dict[str, int]:
    """Column `<metric>_<class>` -> cases whose value `EmptyRule` decided; only those above 0."""
    counts: dict[str, int] = {}
    for score in scores:
        for name, metrics in score.classes.items():
            for metric in metrics.by_rule:
                counts[f"{metric}_{name}"] = counts.get(f"{metric}_{name}", 0) + 1
    return counts


def slicewise_means(scores: Sequence[CaseScore]) -> dict[str, dict[str, float]]:
    """Class -> `slicewise_dice` over all axial slices of all cases, and how many slices."""
    totals: dict[str, SlicewiseDice] = {}
    for score in scores:
        for name, dice in score.slices.items():
            totals[name] = totals.get(name, SlicewiseDice()) + dice
    return {n: {"slicewise_dice": t.mean, "slices": t.slices} for n, t in totals.items()}


def means_as_json(means: Means) -> dict[str, Any]:
    """What `summary.json` holds; a number that does not exist is null."""
    return {
        name: {metric: _as_json(interval) for metric, interval in row.items()}
        for name, row in means.items()
    }


def _as_json(interval: MeanInterval) -> dict[str, float | int | None]:
    values = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    rounded = {k: None if math.isnan(v) else round(v, 6) for k, v in values.items()}
    return {**rounded, "cases": interval.cases}
