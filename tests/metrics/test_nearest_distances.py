import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from kerasseg.metrics.surface import nearest_distances

POINTS = st.lists(st.tuples(st.integers(-5, 9), st.integers(0, 7), st.integers(3, 8)), min_size=1)
SPACING = (0.7, 2.5, 1.1)


@pytest.mark.parametrize("patience", [0.0, 1e9], ids=["transform", "tree"])
@settings(deadline=None)
@given(points=POINTS, others=POINTS)
def test_against_all_pairs(patience, points, others):
    points, others = np.array(points), np.array(others)
    expected = cdist(points * SPACING, others * SPACING).min(1)
    np.testing.assert_allclose(
        nearest_distances(points, others, SPACING, patience), expected, atol=1e-9
    )


def test_transform_takes_over_from_the_tree():
    rng = np.random.default_rng(0)
    points, others = rng.integers(0, 60, (3000, 3)), rng.integers(0, 60, (400, 3))
    # The first 256 points take longer than this patience, the rest is the transform's.
    switched = nearest_distances(points, others, SPACING, patience=0.01)
    np.testing.assert_allclose(switched, cdist(points * SPACING, others * SPACING).min(1))


def test_no_points_have_no_distances():
    assert nearest_distances(np.zeros((0, 3), int), np.zeros((1, 3), int), SPACING).shape == (0,)
