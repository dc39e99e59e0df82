"""Spearman's rank correlation."""

import numpy as np
from scipy import stats


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Of the pairs where both are finite; NaN for fewer than three, or where one is constant."""
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if x.size < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(stats.spearmanr(x, y).statistic)
