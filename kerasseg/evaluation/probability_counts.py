"""How often a probability was right: what calibration, ROC and precision-recall need."""

from dataclasses import dataclass

import numpy as np

BINS = 1000
"""Of width 0.001: thresholds of the curves, and fine enough for a mean probability."""


@dataclass(frozen=True)
class ProbabilityCounts:
    """Voxels of one class by predicted probability: positives and negatives (BINS,) int64.

    Of every voxel, not of a sample, in memory that does not grow; `a + b` is of both.
    """

    positives: np.ndarray
    negatives: np.ndarray

    @classmethod
    def count(cls, probabilities: np.ndarray, truth: np.ndarray) -> "ProbabilityCounts":
        """Of probabilities 0..1 and a boolean truth of one shape."""
        bins = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)
        truth = truth.ravel()
        bins = bins.ravel()
        positives = np.bincount(bins[truth], minlength=BINS)
        return cls(positives, np.bincount(bins, minlength=BINS) - positives)

    def __add__(self, other: "ProbabilityCounts") -> "ProbabilityCounts":
        return ProbabilityCounts(self.positives + other.positives, self.negatives + other.negatives)

    def above(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Thresholds (BINS,) falling to 0, and the true and false positives from each one on."""
        thresholds = np.arange(BINS)[::-1] / BINS
        return thresholds, np.cumsum(self.positives[::-1]), np.cumsum(self.negatives[::-1])
