"""Statistics of scores over cases: bootstrapped means, paired differences, rank correlation."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

_AT_ONCE = 4_000_000
"""Most drawn indices that are in memory at one time."""


@dataclass(frozen=True)
class MeanInterval:
    """The mean of `cases` values and its confidence interval.

    All are NaN without values. The interval of a single patient is NaN, as nothing can be said.
    """

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
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> MeanInterval:
    """Compute the mean of values and its bootstrap interval, widened for few patients.

    The percentiles of the drawn means (Efron 1979) are too near to the mean if patients are few:
    of five, what is called 95 % covers 84 %. So the distance of each from the mean is multiplied by
    t / z * (n / (n - 1))^(1/2), with the quantiles of Student's t of n - 1 degrees of freedom and
    of the normal distribution: the interval has the width of Student's, and keeps its skewness
    (Hesterberg 2015, doi:10.1080/00031305.2015.1089789, on both shortcomings). Simulated coverage
    of 95 % for 3, 5, 12 and 30 normal values: 95, 95, 95 and 94 %; for Beta(8, 2): 94 % throughout.
    It is less where one case in ten fails altogether and fewer than 30 are known.

    Args:
        values: numbers, of which NaN do not count.
        patients: the patient of each value. Patients, not values, are then drawn with replacement,
            as two scans of one patient are not two independent measurements.
        resamples: how often the patients are drawn.
        confidence: share of the drawn means that the interval contains.
        seed: seed of the draws.
        limits: the least and the largest value that is possible; the interval ends there.
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
    levels = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    widening = stats.t.ppf(levels[1], count - 1) / stats.norm.ppf(levels[1])
    widening *= (count / (count - 1)) ** 0.5
    low, high = np.clip(mean + (np.quantile(means, levels) - mean) * widening, *limits)
    return MeanInterval(mean, float(low), float(high), numbers.size)


@dataclass(frozen=True)
class PairedDifference:
    """A metric of a second run minus that of a first one.

    Attributes:
        values: the difference of each case where both are known.
        mean: their mean and its interval.
        p: two-sided p of Wilcoxon's signed-rank test; NaN where all differences are 0.
    """

    values: tuple[float, ...]
    mean: MeanInterval
    p: float

    @property
    def formatted_p(self) -> str:
        """Return p such as "0.031" or "< 0.001", or a dash where there is none."""
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
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> PairedDifference:
    """Compare a metric of two runs whose values are in the same order of cases.

    Wilcoxon 1945 (`scipy.stats.wilcoxon`), on the mean difference of each patient where `patients`
    names them, because it asks for independent pairs. Differences of 0 are left out. The p values
    of several metrics and classes are not corrected for being several. `limits` are those of the
    metric: the interval of a difference of Dice ends at -1 and 1.
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
        limits=(limits[0] - limits[1], limits[1] - limits[0]),
    )
    of_patients = np.array([difference[names == name].mean() for name in np.unique(names)])
    p = float("nan")
    if np.count_nonzero(of_patients) > 0:
        p = float(stats.wilcoxon(of_patients).pvalue)
    return PairedDifference(tuple(difference.tolist()), mean, p)


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Return Spearman's correlation of the pairs where both are finite.

    It is NaN for fewer than three pairs, and where one of the two is constant.
    """
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if x.size < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(stats.spearmanr(x, y).statistic)
