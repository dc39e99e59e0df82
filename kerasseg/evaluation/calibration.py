"""Whether a probability of 0.7 is right in seven of ten voxels."""

from dataclasses import dataclass

import numpy as np

from kerasseg.evaluation.probability_counts import BINS, ProbabilityCounts


@dataclass(frozen=True)
class Calibration:
    """Of equally wide bins of probability: mean probability, observed share of positives (NaN in
    an empty bin), voxels; and the expected calibration error."""

    predicted: np.ndarray
    observed: np.ndarray
    voxels: np.ndarray
    error: float


def calibration(counts: ProbabilityCounts, bins: int = 10) -> Calibration:
    """Guo et al. 2017, `On Calibration of Modern Neural Networks`: the error is the mean distance
    of predicted and observed share, each bin weighted by its voxels. Of a mask, which is mostly
    background, it is small; the diagram shows where it is not. NaN without voxels."""
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
