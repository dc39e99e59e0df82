"""Bootstrapped intervals of means."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

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
