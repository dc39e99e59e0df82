"""Calibration against plain loops over voxels."""

import numpy as np
import pytest

from kerasseg.metrics.calibration import BINS, ProbabilityCounts, calibration


def sample(seed=0, size=5000):
    random = np.random.default_rng(seed)
    probabilities = random.beta(0.7, 1.5, size).astype(np.float32)
    return probabilities, random.random(size) < probabilities**2


def test_the_error_is_the_mean_gap_of_the_bins():
    probabilities, truth = sample()
    found = calibration(ProbabilityCounts.count(probabilities, truth), bins=10)
    error = 0.0
    for index in range(10):
        inside = (probabilities >= index / 10) & (probabilities < (index + 1) / 10)
        assert found.voxels[index] == inside.sum()
        assert found.observed[index] == pytest.approx(truth[inside].mean())
        error += inside.mean() * abs(truth[inside].mean() - probabilities[inside].mean())
    assert found.error == pytest.approx(error, abs=1e-3) and found.error > 0.1
    random = np.random.default_rng(1).random(5000)
    honest = ProbabilityCounts.count(random, np.random.default_rng(2).random(5000) < random)
    assert calibration(honest).error < 0.03
    with pytest.raises(ValueError, match="divisor of 1000"):
        calibration(honest, bins=7)


def test_counts_above_each_threshold_and_of_several_cases():
    parts = [sample(seed, 700) for seed in range(3)]
    counts = ProbabilityCounts.count(*parts[0])
    for part in parts[1:]:
        counts = counts + ProbabilityCounts.count(*part)
    probabilities, truth = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    thresholds, hits, wrong = counts.above()
    for place in (0, 250, 499, BINS - 1):
        held = probabilities >= np.float32(thresholds[place])
        assert hits[place] == pytest.approx((held & truth).sum(), abs=2)
        assert wrong[place] == pytest.approx((held & ~truth).sum(), abs=2)
    assert (hits[-1], wrong[-1]) == (truth.sum(), (~truth).sum()), "a probability of 1 counts"
    one = ProbabilityCounts.count(np.ones((2, 3)), np.ones((2, 3), bool))
    assert one.positives[-1] == 6 and not one.negatives.any()
