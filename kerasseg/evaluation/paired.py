"""Two runs on the same cases."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from kerasseg.evaluation.bootstrap import MeanInterval, bootstrap_mean


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
