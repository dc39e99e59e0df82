"""Histograms that are exact where they can be, and close to the voxels' own elsewhere."""

import numpy as np
import pytest

from kerasseg.data_report.figures import Z_EDGES, common_edges
from kerasseg.data_report.statistics import measure_intensities
from kerasseg.records.normalise import z_score

RNG = np.random.default_rng(0)
FLOATS = RNG.normal(-20, 60, 50_000).astype(np.float32)
BYTES = np.clip(np.rint(RNG.gamma(3, 20, 50_000)), 1, 255).astype(np.float32)


@pytest.mark.parametrize("values", [FLOATS, BYTES], ids=["negative floats", "bytes"])
def test_moments_and_percentiles_are_those_of_the_voxels(values):
    found = measure_intensities(values)
    assert found.count == values.size
    assert found.mean == pytest.approx(values.mean(dtype=float))
    assert found.deviation == pytest.approx(values.std(dtype=float))
    np.testing.assert_allclose(found.percentiles, np.percentile(values, (1, 50, 99)), atol=0.05)


@pytest.mark.parametrize("values", [FLOATS, BYTES], ids=["negative floats", "bytes"])
def test_after_the_z_score_shares_are_those_of_the_stored_values(values):
    normalised, _, _ = z_score(values[:, np.newaxis])
    expected = np.histogram(normalised, Z_EDGES)[0] / values.size
    found = measure_intensities(values).normalised_shares(Z_EDGES)
    # Whole numbers are spread over the bins that they stand for: compare neighbours together.
    np.testing.assert_allclose(
        found.reshape(-1, 5).sum(axis=1), expected.reshape(-1, 5).sum(axis=1), atol=0.012
    )


def test_shares_of_whole_numbers_are_exact_at_their_edges():
    values = np.repeat(np.arange(1.0, 101), 20).astype(np.float32)
    edges = np.arange(0.5, 101, 4)
    np.testing.assert_allclose(measure_intensities(values).shares(edges), 4 / 100, rtol=1e-6)


def test_whole_numbers_make_no_comb():
    values = np.repeat(np.arange(1.0, 401), 20).astype(np.float32)
    shares = measure_intensities(values).shares(np.linspace(20, 380, 90))
    np.testing.assert_allclose(shares, shares.mean(), rtol=1e-5)


def test_a_hot_voxel_leaves_the_others_their_bins():
    values = np.append(FLOATS, np.float32(1e6))
    found = measure_intensities(values)
    assert found.end < 500
    assert np.count_nonzero(found.histogram) > 200


def test_bins_are_few_whatever_the_range():
    values = np.rint(RNG.uniform(1, 60_000, 10_000)).astype(np.float32)
    assert measure_intensities(values).histogram.size <= 256


def test_a_constant_and_an_empty_modality():
    constant = measure_intensities(np.full(10, 7, np.float32))
    assert constant.shares(np.array([6.0, 7.5])) == pytest.approx(1)
    z = constant.normalised_shares(Z_EDGES)
    assert z.sum() == 1 and Z_EDGES[z.argmax()] <= 0 < Z_EDGES[z.argmax() + 1]
    empty = measure_intensities(np.zeros(0, np.float32))
    assert empty.count == 0 and not empty.normalised_shares(Z_EDGES).any()


def test_the_common_range_is_logarithmic_where_gains_differ_much():
    like = [measure_intensities(np.abs(FLOATS) * gain + 1) for gain in (1, 2, 3)]
    edges, logarithmic = common_edges(like)
    assert not logarithmic and edges[0] < 1.5 and edges[-1] > 400
    apart = [measure_intensities(np.abs(FLOATS) * gain + 1) for gain in (1, 5, 30)]
    edges, logarithmic = common_edges(apart)
    assert logarithmic and edges[0] > 0
    np.testing.assert_allclose(np.diff(np.log(edges)), np.log(edges[1] / edges[0]))


def test_the_common_range_takes_negative_values_and_leaves_out_a_few_far_off():
    cases = [measure_intensities(FLOATS) for _ in range(60)] + [measure_intensities(FLOATS * 1000)]
    edges, logarithmic = common_edges(cases)
    assert not logarithmic
    assert -250 < edges[0] < -150 and 100 < edges[-1] < 300
