import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import dice as scipy_dissimilarity

from kerasseg.metrics.overlap import dice

MASKS = hnp.arrays(bool, (3, 4, 5))


@given(MASKS, MASKS)
def test_against_scipy(truth, prediction):
    if truth.any() or prediction.any():
        expected = 1 - scipy_dissimilarity(truth.ravel(), prediction.ravel())
        assert dice(truth, prediction) == pytest.approx(expected)


def test_empty_masks_follow_brats():
    empty, some = np.zeros((2, 3, 4), bool), np.ones((2, 3, 4), bool)
    assert dice(empty, empty) == 1 and dice(empty, some) == 0 and dice(some, empty) == 0
