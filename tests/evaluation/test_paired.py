import numpy as np
import pytest
from scipy import stats

from kerasseg.evaluation.statistics import compare_paired


def test_a_shift_is_found_and_noise_is_not():
    random = np.random.default_rng(0)
    first = random.random(20)
    second = first + 0.1 + random.normal(0, 0.02, 20)
    found = compare_paired(first, second)
    assert found.mean.mean == pytest.approx((second - first).mean())
    assert 0.08 < found.mean.low < found.mean.high < 0.12 and found.p < 1e-4
    assert found.p == stats.wilcoxon(first, second).pvalue and found.p_in_words == "< 0.001"
    back = compare_paired(second, first)
    assert back.mean.mean == -found.mean.mean and back.p == found.p
    assert compare_paired(first, first + random.normal(0, 0.02, 20)).p > 0.05


def test_pairs_without_a_number_do_not_count_and_equal_runs_have_no_p():
    found = compare_paired([0.1, np.nan, 0.3], [0.2, 0.5, np.nan])
    assert found.values == pytest.approx((0.1,)) and found.mean.cases == 1
    same = compare_paired([0.1, 0.2], [0.1, 0.2])
    assert np.isnan(same.p) and same.p_in_words == "\N{EN DASH}" and same.mean.mean == 0
    assert compare_paired([], []).mean.cases == 0


def test_scans_of_one_patient_are_one_pair():
    first = np.zeros(12)
    second = np.arange(1.0, 13.0) / 10
    patients = [f"p{i // 2}" for i in range(12)]
    found = compare_paired(first, second, patients=patients)
    assert found.p == stats.wilcoxon(second.reshape(6, 2).mean(axis=1)).pvalue
    assert found.p > compare_paired(first, second).p
