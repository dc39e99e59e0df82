"""Which cases to look at.

Bootstrapped intervals of means.

Two runs on the same cases.

Means over cases with their intervals, and how often a rule stood in for a measurement.

Scores of several runs on the cases that all of them have.

Spearman's rank correlation.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from kerasseg import anatomy
from kerasseg.config.evaluation import MetricsSection
from kerasseg.evaluation.scores import CaseScore, SlicewiseDice

_AT_ONCE = 4_000_000
"""Drawn indices in memory at one time."""


@dataclass(frozen=True)
class MeanInterval:
    """A mean of `cases` values and its interval. All NaN without values; of one patient alone the
    interval is NaN, because nothing can be said."""

    mean: float
    low: float
    high: float
    cases: int


def bootstrap_mean(
    values: Sequence[float] | np.ndarray,
    *,
    patients: Sequence[Hashable] | None = None,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> MeanInterval:
    """The mean of values, and its percentile bootstrap interval (Efron 1979); NaN do not count.

    Patients, not cases, are drawn with replacement, where `patients` names one per value: two
    scans of one patient are not two independent measurements.
    """
    numbers = np.asarray(values, float)
    names = list(range(numbers.size)) if patients is None else list(patients)
    valid = np.isfinite(numbers)
    numbers = numbers[valid]
    if not numbers.size:
        return MeanInterval(np.nan, np.nan, np.nan, 0)
    mean = float(numbers.mean())
    known: dict[Hashable, int] = {}
    places = [known.setdefault(name, len(known)) for name, v in zip(names, valid, strict=True) if v]
    count = len(known)
    if count == 1:
        return MeanInterval(mean, np.nan, np.nan, numbers.size)
    sums = np.bincount(places, numbers, count)
    sizes = np.bincount(places, minlength=count)
    random = np.random.default_rng(seed)
    means = np.empty(resamples)
    step = max(1, _AT_ONCE // count)
    for start in range(0, resamples, step):
        drawn = random.integers(0, count, (min(step, resamples - start), count))
        means[start : start + step] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, ((1 - confidence) / 2, (1 + confidence) / 2))
    return MeanInterval(mean, float(low), float(high), numbers.size)


@dataclass(frozen=True)
class PairedDifference:
    """values: second minus first, per case where both are known; mean: theirs and its interval;
    p: of Wilcoxon's signed-rank test, two-sided, NaN where it says nothing."""

    values: tuple[float, ...]
    mean: MeanInterval
    p: float

    @property
    def p_in_words(self) -> str:
        """Such as "0.031" or "< 0.001"; a dash where there is none."""
        if np.isnan(self.p):
            return "\N{EN DASH}"
        return "< 0.001" if self.p < 0.001 else f"{self.p:.3f}"


def compare_paired(
    first: Sequence[float],
    second: Sequence[float],
    *,
    patients: Sequence[str] | None = None,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> PairedDifference:
    """Compare a metric of two runs, whose values stand in the same order of cases.

    Wilcoxon 1945 (`scipy.stats.wilcoxon`), on the mean difference of each patient where `patients`
    names them, because it asks for independent pairs. Differences of 0 are left out. The p values
    of several metrics and classes are not corrected for being several.
    """
    difference = np.asarray(second, float) - np.asarray(first, float)
    known = np.isfinite(difference)
    names = np.arange(difference.size) if patients is None else np.asarray(patients)
    difference, names = difference[known], names[known]
    mean = bootstrap_mean(
        difference,
        patients=names.tolist(),
        resamples=resamples,
        confidence=confidence,
        seed=seed,
    )
    of_patients = np.array([difference[names == name].mean() for name in np.unique(names)])
    p = float("nan")
    if np.count_nonzero(of_patients) > 0:
        p = float(stats.wilcoxon(of_patients).pvalue)
    return PairedDifference(tuple(difference.tolist()), mean, p)


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


@dataclass(frozen=True)
class Comparison:
    """Runs by their names, on the cases that all of them have: scores in one order of cases.

    differences: other run -> class -> metric -> that run minus the first one
    averaged:    the classes of a case's mean Dice, the same for every run
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    scores: dict[str, list[CaseScore]]
    means: dict[str, Means]
    differences: dict[str, dict[str, dict[str, PairedDifference]]]
    averaged: tuple[str, ...]

    def mean_dice(self, score: CaseScore) -> float:
        """Of a case; NaN where a class does not count."""
        return float(np.mean([score.classes[name].values["dice"] for name in self.averaged]))


def compare(scores: dict[str, list[CaseScore]], settings: MetricsSection) -> Comparison:
    """Scores of each run, of the cases and classes that all have."""
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


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Of the pairs where both are finite; NaN for fewer than three, or where one is constant."""
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if x.size < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(stats.spearmanr(x, y).statistic)


def mean_dice(score: CaseScore) -> float:
    """Over the target's channels; NaN where none counts."""
    return score.dice["mean"] if "mean" in score.dice else next(iter(score.dice.values()))


def ranked_cases(scores: Sequence[CaseScore]) -> dict[str, CaseScore]:
    """worst, median and best -> the case by its mean Dice, each case once; `only` where there is
    one. Cases where the empty rule decided everything are left out, as they show nothing, unless
    there are no others."""
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
