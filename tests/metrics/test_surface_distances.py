import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kerasseg.metrics.surface import SurfaceDistances, surface
from tests.metrics.masks import brute_distances, pairs, surface_points

MASKS = hnp.arrays(bool, (3, 5, 4))
SPACINGS = st.tuples(*[st.floats(0.2, 5.0)] * 3)


def scores(truth, prediction, spacing, tolerance=1.0):
    distances = SurfaceDistances.measure(truth, prediction, spacing)
    return distances.hd95, distances.assd, distances.surface_dice(tolerance)


def test_against_every_pair_of_surface_voxels():
    compared = 0
    for truth, prediction, spacing in pairs(210):
        if not (truth.any() and prediction.any()):
            continue
        compared += 1
        one, other = brute_distances(truth, prediction, spacing)
        both = np.concatenate([one, other])
        expected = (
            max(np.percentile(one, 95), np.percentile(other, 95)),
            both.mean(),
            np.mean(both <= 1.7 + 1e-6),
        )
        assert scores(truth, prediction, spacing, 1.7) == pytest.approx(expected, abs=1e-9)
    assert compared > 130


@settings(deadline=None)
@given(MASKS)
def test_surface_is_what_touches_the_outside(mask):
    np.testing.assert_array_equal(np.argwhere(surface(mask)), surface_points(mask).reshape(-1, 3))


def test_surface_of_a_slice_is_its_contour():
    mask = np.zeros((1, 7, 9), bool)
    mask[0, 1:6, 2:8] = True
    contour = mask.copy()
    contour[0, 2:5, 3:7] = False
    np.testing.assert_array_equal(surface(mask), contour)
    np.testing.assert_array_equal(surface(mask.transpose(2, 0, 1)), contour.transpose(2, 0, 1))


def test_surface_of_one_voxel_is_the_voxel():
    assert surface(np.ones((1, 1, 1), bool)).all()


@settings(deadline=None)
@given(MASKS, MASKS, SPACINGS)
def test_symmetric(truth, prediction, spacing):
    assume(truth.any() and prediction.any())
    assert scores(truth, prediction, spacing) == pytest.approx(scores(prediction, truth, spacing))


@settings(deadline=None)
@given(MASKS, SPACINGS)
def test_identical_masks_are_perfect(mask, spacing):
    assume(mask.any())
    assert scores(mask, mask, spacing, tolerance=0.0) == (0.0, 0.0, 1.0)


@settings(deadline=None)
@given(MASKS, MASKS, SPACINGS, st.sampled_from([0.25, 2.0, 8.0]))
def test_distances_scale_with_the_spacing(truth, prediction, spacing, factor):
    assume(truth.any() and prediction.any())
    hd95, assd, _ = scores(truth, prediction, spacing)
    wider = tuple(factor * side for side in spacing)
    assert scores(truth, prediction, wider)[:2] == pytest.approx((factor * hd95, factor * assd))


@settings(deadline=None)
@given(MASKS, MASKS, SPACINGS, st.floats(0, 10))
def test_bounds(truth, prediction, spacing, tolerance):
    assume(truth.any() and prediction.any())
    hd95, assd, near = scores(truth, prediction, spacing, tolerance)
    diagonal = np.linalg.norm(np.array(spacing) * (np.array(truth.shape) - 1))
    assert 0 <= hd95 <= diagonal + 1e-9 and 0 <= assd <= diagonal + 1e-9
    assert 0 <= near <= 1


def test_tolerance_holds_at_the_exact_distance():
    truth = np.zeros((5, 1, 3), bool)
    truth[0, 0, 0] = True
    moved = np.roll(truth, 3, 0)
    assert scores(truth, moved, (0.1, 1, 1), tolerance=0.3)[2] == 1
    assert scores(truth, moved, (0.1, 1, 1), tolerance=0.29)[2] == 0
