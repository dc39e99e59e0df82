"""Warps: where each voxel comes from, how often, how far."""

import math

import numpy as np
import pytest
import tensorflow as tf
from scipy.interpolate import BSpline

from kerasseg.config.augment import Spatial
from kerasseg.pipeline.augment.spatial import draw_spatial, sources

SIZES = {3: (9, 12, 14), 2: (11, 14)}
STRONG = {"rotation": 40.0, "p_rotation": 1.0, "p_scale": 1.0, "stretch": 0.1, "shift": 0.1}


def brute_force_sources(warp, size):
    """Brute force: the place in the patch's own voxels that each voxel comes from, in float64."""
    knots = warp.displacement.shape[0]
    t = np.arange(-3, knots + 1.0)
    flow = warp.displacement.numpy().astype(float)
    for axis, n in enumerate(size):
        places = np.linspace(0, knots - 3, n)
        basis = [BSpline(t, np.eye(knots)[k], 3)(places) for k in range(knots)]
        flow = np.moveaxis(np.tensordot(np.stack(basis, 1), flow, [[1], [axis]]), 0, axis)
    lines = [np.arange(n) - (n - 1) / 2 for n in size]
    offsets = np.stack(np.meshgrid(*lines, indexing="ij"), -1) + flow
    half = (np.array(size) - 1) / 2
    return offsets @ warp.matrix.numpy().astype(float).T + half + warp.shift.numpy()


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("elastic", [0.0, 0.05])
def test_sources_are_those_of_splines_and_a_matrix(dimensions, elastic):
    size = SIZES[dimensions]
    warp = draw_spatial(
        tf.constant([1, 2]), size, Spatial(**STRONG, elastic=elastic, p_elastic=1.0)
    )
    found = np.stack(sources(warp, size, bent=elastic > 0), -1)
    np.testing.assert_allclose(found, brute_force_sources(warp, size), atol=1e-4)
    assert abs(np.linalg.det(warp.matrix) - 1) > 0.01, "the test's warp does scale"
    assert bool(np.any(warp.displacement)) == (elastic > 0)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_rotations_are_rotations_and_as_often_and_as_far_as_asked(dimensions):
    settings = Spatial(rotation=30.0, p_rotation=0.4, p_scale=0.0)
    draw = tf.function(lambda seed: draw_spatial(seed, SIZES[dimensions], settings).matrix)
    turned, angles = [], []
    for index in range(300):
        matrix = draw(tf.constant([9, index])).numpy()
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(dimensions), atol=1e-5)
        turned.append(not np.array_equal(matrix, np.eye(dimensions)))
        if dimensions == 2 and turned[-1]:
            angles.append(math.degrees(math.atan2(matrix[1, 0], matrix[0, 0])))
    assert np.mean(turned) == pytest.approx(0.4, abs=0.08)
    if dimensions == 2:
        assert -30 <= min(angles) < -25 and 25 < max(angles) <= 30


def test_a_rotation_of_thick_slices_is_one_of_millimetres():
    """In mm it keeps angles and lengths, whatever the voxels; so a head is turned, not sheared."""
    spacing = np.array([5.0, 0.5, 0.9], np.float32)
    settings = Spatial(rotation=40.0, p_rotation=1.0, p_scale=0.0)
    matrix = draw_spatial(tf.constant([9, 1]), SIZES[3], settings, spacing).matrix.numpy()
    in_mm = matrix * spacing[:, np.newaxis] / spacing
    np.testing.assert_allclose(in_mm @ in_mm.T, np.eye(3), atol=1e-5)
    assert np.abs(in_mm - np.eye(3)).max() > 0.1
    assert np.abs(matrix @ matrix.T - np.eye(3)).max() > 0.1, "in voxels it is no rotation"


def test_scales_lie_between_their_limits_evenly_in_their_logarithm():
    settings = Spatial(p_rotation=0.0, p_scale=1.0, scale=(0.5, 2.0))
    draw = tf.function(lambda seed: draw_spatial(seed, SIZES[3], settings).matrix[0, 0])
    factors = [1 / draw(tf.constant([2, i])).numpy() for i in range(300)]
    assert 0.5 <= min(factors) < 0.55 and 1.8 < max(factors) <= 2.0
    assert np.mean(np.log(factors)) == pytest.approx(0.0, abs=0.08)
    described = Spatial.model_fields["scale"].description
    assert "logarithm is drawn evenly" in described


def test_shift_and_stretch_act_without_rotation_and_scaling():
    seed = tf.constant([3, 4])
    shifted = draw_spatial(seed, (8, 16), Spatial(shift=0.25, p_rotation=0, p_scale=0))
    assert 0 < abs(shifted.shift.numpy()).max() <= 4
    np.testing.assert_array_equal(shifted.matrix, np.eye(2))
    stretched = draw_spatial(seed, (8, 16), Spatial(stretch=0.2, p_rotation=0, p_scale=0))
    factors = np.diag(stretched.matrix)
    assert factors[0] != factors[1] and np.prod(factors) == pytest.approx(1)
    assert not stretched.shift.numpy().any()
    # With a share of their own they follow it: of no rotation and no scaling nothing is left.
    still = Spatial(shift=0.25, stretch=0.2, p_rotation=1e-9, p_scale=1e-9)
    np.testing.assert_array_equal(draw_spatial(seed, (8, 16), still).matrix, np.eye(2))
