"""Bootstrapped means and paired differences, against SciPy."""

import numpy as np
import pytest
from scipy import stats

from kerasseg.evaluation.statistics import limits_of
from kerasseg.metrics.statistics import bootstrap_mean, compare_paired


def test_the_interval_is_scipys():
    values = np.random.default_rng(3).gamma(2.0, 1.0, 40)
    found = bootstrap_mean(values, resamples=20_000, confidence=0.9)
    wanted = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, confidence_level=0.9, method="percentile"
    ).confidence_interval
    assert found.mean == pytest.approx(values.mean()) and found.cases == 40
    widening = stats.t.ppf(0.95, 39) / stats.norm.ppf(0.95) * (40 / 39) ** 0.5
    low, high = values.mean() + (np.array(wanted) - values.mean()) * widening
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)
    assert found == bootstrap_mean(values, resamples=20_000, confidence=0.9), "seeded"
    assert found != bootstrap_mean(values, resamples=20_000, confidence=0.9, seed=1)


@pytest.mark.parametrize("patients", [3, 5, 12])
@pytest.mark.parametrize("kind", ["normal", "beta"])
def test_an_interval_of_few_patients_covers_what_it_says(patients, kind):
    """Of 400 studies with a known mean; the error of the share is 1.1 %."""
    random = np.random.default_rng(7)
    size = (400, patients)
    studies = random.normal(0.8, 0.1, size) if kind == "normal" else random.beta(8, 2, size)
    found = [bootstrap_mean(study, resamples=400) for study in studies]
    assert np.mean([each.low <= 0.8 <= each.high for each in found]) > 0.91


def test_scans_of_one_patient_are_drawn_together():
    values = np.random.default_rng(0).normal(size=10)
    once = bootstrap_mean(values)
    twice = bootstrap_mean(np.repeat(values, 2), patients=np.repeat(np.arange(10), 2).tolist())
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))
    apart = bootstrap_mean(np.repeat(values, 2))
    assert apart.high - apart.low < 0.85 * (once.high - once.low)


def test_what_is_not_a_number_does_not_count_and_one_patient_has_no_interval():
    found = bootstrap_mean([1.0, np.nan, 3.0])
    assert found.mean == 2.0 and found.cases == 2
    # Two values say little: Student's t of one degree of freedom is 12.7, and z is 1.96.
    assert found.low == pytest.approx(2 - 12.706 / 1.96 * 2**0.5, abs=0.01)
    assert bootstrap_mean([1.0, 3.0], limits=limits_of("hd95")).low == 0.0
    assert bootstrap_mean([0.9, 0.2], limits=limits_of("dice")).high == 1.0
    assert bootstrap_mean([-0.9, -0.2], limits=limits_of("a_users_metric")).low < -1.0
    worse = compare_paired([0.9, 1.0], [0.1, 0.8], limits=limits_of("dice")).mean
    assert (worse.low, worse.high) == (-1.0, 1.0)
    alone = bootstrap_mean([1.0, 3.0], patients=["a", "a"])
    assert alone.mean == 2.0 and np.isnan(alone.low) and np.isnan(alone.high)
    assert bootstrap_mean([np.nan]).cases == 0 and np.isnan(bootstrap_mean([]).mean)


def test_a_shift_is_found_and_noise_is_not():
    random = np.random.default_rng(0)
    first = random.random(20)
    second = first + 0.1 + random.normal(0, 0.02, 20)
    found = compare_paired(first, second)
    assert found.mean.mean == pytest.approx((second - first).mean())
    assert 0.08 < found.mean.low < found.mean.high < 0.12 and found.p < 1e-4
    assert found.p == stats.wilcoxon(first, second).pvalue and found.formatted_p == "< 0.001"
    back = compare_paired(second, first)
    assert back.mean.mean == -found.mean.mean and back.p == found.p
    assert compare_paired(first, first + random.normal(0, 0.02, 20)).p > 0.05


def test_pairs_without_a_number_do_not_count_and_equal_runs_have_no_p():
    found = compare_paired([0.1, np.nan, 0.3], [0.2, 0.5, np.nan])
    assert found.values == pytest.approx((0.1,)) and found.mean.cases == 1
    same = compare_paired([0.1, 0.2], [0.1, 0.2])
    assert np.isnan(same.p) and same.formatted_p == "\N{EN DASH}" and same.mean.mean == 0
    assert compare_paired([], []).mean.cases == 0


def test_scans_of_one_patient_are_one_pair():
    first = np.zeros(12)
    second = np.arange(1.0, 13.0) / 10
    patients = [f"p{i // 2}" for i in range(12)]
    found = compare_paired(first, second, patients=patients)
    assert found.p == stats.wilcoxon(second.reshape(6, 2).mean(axis=1)).pvalue
    assert found.p > compare_paired(first, second).p
