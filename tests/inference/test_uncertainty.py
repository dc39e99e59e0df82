"""Entropy and variance by their formulas, one voxel at a time."""

import math

import numpy as np
import pytest

from kerasseg.inference.uncertainty import entropy, uncertainty

RNG = np.random.default_rng(0)


def bits(*shares):
    return -sum(p * math.log2(p) for p in shares if p > 0)


def test_entropy_of_a_softmax_target():
    probabilities = RNG.dirichlet([0.3] * 4, size=(2, 3, 5)).astype(np.float32)
    probabilities[0, 0, 0] = [0, 1, 0, 0]
    probabilities[0, 0, 1] = 0.25
    found = entropy(probabilities, "labels")
    assert found.shape == (2, 3, 5, 1) and found.dtype == np.float32
    for place in np.ndindex(2, 3, 5):
        assert found[place][0] == pytest.approx(bits(*map(float, probabilities[place])), abs=1e-5)
    assert found[0, 0, 0, 0] == 0 and found[0, 0, 1, 0] == 2


def test_entropy_of_a_sigmoid_target():
    probabilities = RNG.random((2, 3, 5, 3)).astype(np.float32)
    probabilities[0, 0, 0] = [0, 1, 0.5]
    found = entropy(probabilities, "regions")
    for place in np.ndindex(*probabilities.shape):
        p = float(probabilities[place])
        assert found[place] == pytest.approx(bits(p, 1 - p), abs=1e-5)
    assert list(found[0, 0, 0]) == [0, 0, 1]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_mean_and_variance_of_the_members(count):
    members = RNG.random((count, 4, 3, 5, 2)).astype(np.float32)
    before = members.copy()
    found = uncertainty(iter(members), "regions")
    np.testing.assert_allclose(found.probabilities, members.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found.variance, members.var(axis=0), atol=1e-6)
    np.testing.assert_allclose(found.entropy, entropy(members.mean(axis=0), "regions"), atol=1e-5)
    np.testing.assert_array_equal(members, before, "the members stay as they were")


def test_votes_are_members_too():
    found = uncertainty(np.array([[[[[True]]]], [[[[False]]]]]), "binary")
    assert found.variance == 0.25 and found.entropy == 1


def test_no_members():
    with pytest.raises(ValueError, match="at least one member"):
        uncertainty([], "regions")
