"""How often a predicted probability was right: counts of voxels, and the calibration error."""

from dataclasses import dataclass

import numpy as np

BINS = 1000
"""Bins of width 0.001 give the thresholds of all curves, and a mean probability fine enough."""


@dataclass(frozen=True)
class ProbabilityCounts:
    """Voxels of one class by their predicted probability.

    They are counts of every voxel, not of a sample, in memory that does not grow; `a + b` counts
    the voxels of both.

    Attributes:
        positives: voxels (BINS,) int64 that belong to the class.
        negatives: voxels (BINS,) int64 that do not.
    """

    positives: np.ndarray
    negatives: np.ndarray

    @classmethod
    def count(cls, probabilities: np.ndarray, truth: np.ndarray) -> "ProbabilityCounts":
        """Count voxels by probabilities from 0 to 1 and a boolean truth of the same shape."""
        bins = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)
        truth = truth.ravel()
        bins = bins.ravel()
        positives = np.bincount(bins[truth], minlength=BINS)
        return cls(positives, np.bincount(bins, minlength=BINS) - positives)

    def __add__(self, other: "ProbabilityCounts") -> "ProbabilityCounts":
        return ProbabilityCounts(self.positives + other.positives, self.negatives + other.negatives)

    def above(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return thresholds (BINS,) falling to 0, and the true and false positives of each."""
        thresholds = np.arange(BINS)[::-1] / BINS
        return thresholds, np.cumsum(self.positives[::-1]), np.cumsum(self.negatives[::-1])


@dataclass(frozen=True)
class Calibration:
    """A reliability diagram in equally wide bins of probability.

    Attributes:
        predicted: mean probability of each bin; NaN in an empty one.
        observed: share of positives in each bin; NaN in an empty one.
        voxels: voxels in each bin.
        error: expected calibration error; NaN without voxels.
    """

    predicted: np.ndarray
    observed: np.ndarray
    voxels: np.ndarray
    error: float


def calibration(counts: ProbabilityCounts, bins: int = 10) -> Calibration:
    """Compute the calibration of Guo et al. 2017, `On Calibration of Modern Neural Networks`.

    The error is the mean distance between predicted and observed share, each bin weighted by its
    voxels. It is small for every mask, which is mostly background; the diagram shows where it is
    not. `bins` must divide `BINS`.
    """
    if BINS % bins:
        raise ValueError(f"bins is {bins}: expected a divisor of {BINS}")
    centres = (np.arange(BINS) + 0.5) / BINS
    every = counts.positives + counts.negatives
    voxels = every.reshape(bins, -1).sum(axis=1)
    with np.errstate(invalid="ignore"):
        predicted = (every * centres).reshape(bins, -1).sum(axis=1) / voxels
        observed = counts.positives.reshape(bins, -1).sum(axis=1) / voxels
    total = voxels.sum()
    gaps = np.nan_to_num(np.abs(predicted - observed)) * voxels
    return Calibration(predicted, observed, voxels, float(gaps.sum() / total) if total else np.nan)
