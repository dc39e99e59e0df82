import numpy as np
import pytest
from scipy import stats

from kerasseg.evaluation.scores import SlicewiseDice
from kerasseg.evaluation.statistics import bootstrap_mean
from kerasseg.metrics.overlap import dice


def test_the_interval_is_scipys():
    values = np.random.default_rng(3).gamma(2.0, 1.0, 40)
    found = bootstrap_mean(values, resamples=20_000, confidence=0.9)
    wanted = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, confidence_level=0.9, method="percentile"
    ).confidence_interval
    assert found.mean == pytest.approx(values.mean()) and found.cases == 40
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=0.02)
    assert found == bootstrap_mean(values, resamples=20_000, confidence=0.9), "seeded"
    assert found != bootstrap_mean(values, resamples=20_000, confidence=0.9, seed=1)


def test_scans_of_one_patient_are_drawn_together():
    values = np.random.default_rng(0).normal(size=10)
    once = bootstrap_mean(values)
    twice = bootstrap_mean(np.repeat(values, 2), patients=np.repeat(np.arange(10), 2).tolist())
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))
    apart = bootstrap_mean(np.repeat(values, 2))
    assert apart.high - apart.low < 0.85 * (once.high - once.low)


def test_what_is_not_a_number_does_not_count_and_one_patient_has_no_interval():
    found = bootstrap_mean([1.0, np.nan, 3.0])
    assert found.mean == 2.0 and found.cases == 2 and found.low >= 1.0
    alone = bootstrap_mean([1.0, 3.0], patients=["a", "a"])
    assert alone.mean == 2.0 and np.isnan(alone.low) and np.isnan(alone.high)
    assert bootstrap_mean([np.nan]).cases == 0 and np.isnan(bootstrap_mean([]).mean)


def test_slices_without_the_class_do_not_count():
    random = np.random.default_rng(1)
    truth, prediction = random.random((2, 5, 6, 7)) < 0.3
    truth[1] = prediction[1] = False
    truth[2] = False
    found = SlicewiseDice.measure(truth, prediction)
    wanted = [dice(truth[i], prediction[i]) for i in (0, 2, 3, 4)]
    assert found.slices == 4 and found.mean == pytest.approx(np.mean(wanted))
    assert wanted[1] == 0 and (found + found).mean == pytest.approx(found.mean)
    sagittal = SlicewiseDice.measure(truth, prediction, axis=2)
    wanted = [dice(truth[..., i], prediction[..., i]) for i in range(7)]
    assert sagittal.mean == pytest.approx(np.mean(wanted))
    assert np.isnan(SlicewiseDice().mean)
