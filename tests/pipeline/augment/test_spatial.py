"""Warps: true against scipy, on a region just large enough, replayable."""

import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage
from scipy.interpolate import BSpline

from kerasseg.pipeline.augment.spatial import (
    Warp,
    draw_spatial,
    resample,
    source_region,
    warped,
)
from kerasseg.settings.augment import Spatial

SIZES = {3: (9, 12, 14), 2: (11, 14)}
STRONG = {"rotation": 40.0, "p_rotation": 1.0, "p_scale": 1.0, "stretch": 0.1, "shift": 0.1}


def volume(dimensions):
    """A volume of two channels that is far larger than the patch, its labels, the patch's place."""
    random = np.random.default_rng(dimensions)
    shape = (50, 52, 54)[:dimensions]
    image = random.normal(size=(*shape, 2)).astype(np.float32)
    label = random.integers(0, 4, shape).astype(np.uint8)
    return image, label, np.array([20, 21, 22][:dimensions])


def cut(image, label, place):
    """The function that `warped` asks for a region."""

    def region(first, extent):
        box = tuple(
            slice(int(a), int(a + n)) for a, n in zip(place + first, extent.numpy(), strict=True)
        )
        assert image[box].shape[:-1] == tuple(extent.numpy()), "the test's volume is too small"
        return tf.constant(image[box]), tf.constant(label[box])

    return region


def sources(warp, size):
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
def test_a_warp_is_the_resampling_of_scipy(dimensions, elastic):
    size = SIZES[dimensions]
    image, label, place = volume(dimensions)
    settings = Spatial(**STRONG, elastic=elastic, p_elastic=1.0)
    warp = draw_spatial(tf.constant([1, 2]), size, settings)
    first, extent = source_region(warp, size)
    region = cut(image, label, place)(first.numpy(), extent)
    moved, nearest = resample(*region, warp, first, size)
    _, linear = resample(*region, warp, first, size, "linear")
    places = np.moveaxis(sources(warp, size) + place, -1, 0)
    for channel in range(2):
        expected = ndimage.map_coordinates(image[..., channel], places, order=1)
        np.testing.assert_allclose(moved[..., channel], expected, atol=1e-4)
    rounded = tuple(np.floor(places + 0.5).astype(int))
    assert np.mean(nearest.numpy() == label[rounded]) > 0.995, "rounding may differ at a half"
    shares = [
        ndimage.map_coordinates((label == k).astype(float), places, order=1) for k in range(4)
    ]
    assert np.mean(linear.numpy() == np.argmax(shares, 0)) > 0.995
    assert abs(np.linalg.det(warp.matrix) - 1) > 0.01, "the test's warp does scale"
    assert bool(np.any(warp.displacement)) == (elastic > 0)


@pytest.mark.parametrize("elastic", [0.0, 0.1])
def test_the_region_holds_every_source_and_is_just_large_enough(elastic):
    size = SIZES[3]
    settings = Spatial(**STRONG, elastic=elastic, p_elastic=1.0)
    for index in range(20):
        warp = draw_spatial(tf.constant([3, index]), size, settings)
        first, extent = (v.numpy() for v in source_region(warp, size))
        places = sources(warp, size).reshape(-1, 3)
        assert np.all(np.floor(places.min(0)) >= first)
        assert np.all(np.floor(places.max(0)) + 1 <= first + extent - 1)
        if not elastic:
            assert np.all(places.min(0) - first <= 1.02)
            assert np.all(first + extent - 1 - places.max(0) <= 1.02)


def test_what_is_not_drawn_is_cut_as_it_is():
    image, label, place = volume(3)
    settings = Spatial(p_rotation=0.0, p_scale=0.0, p_elastic=0.0, elastic=0.1)
    moved, same = warped(cut(image, label, place), SIZES[3], settings, tf.constant([0, 0]))
    box = tuple(slice(p, p + n) for p, n in zip(place, SIZES[3], strict=True))
    np.testing.assert_array_equal(moved, image[box])
    np.testing.assert_array_equal(same, label[box])


def test_identity_at_zero_strength():
    image, label, place = volume(3)
    size = SIZES[3]
    still = {"rotation": 0.0, "scale": (1.0, 1.0), "shift": 0.0, "elastic": 0.0}
    settings = Spatial(**still, p_rotation=1.0, p_scale=1.0, p_elastic=1.0)
    warp = draw_spatial(tf.constant([5, 5]), size, settings)
    first, extent = source_region(warp, size)
    moved, same = resample(*cut(image, label, place)(first.numpy(), extent), warp, first, size)
    box = tuple(slice(p, p + n) for p, n in zip(place, size, strict=True))
    np.testing.assert_allclose(moved, image[box], atol=1e-5)
    np.testing.assert_array_equal(same, label[box])


def test_a_quarter_turn_turns_a_cube():
    image = tf.reshape(tf.range(4.0 * 4 * 4), [4, 4, 4, 1])
    label = tf.cast(tf.reshape(tf.range(64) % 4, [4, 4, 4]), tf.uint8)
    turn = tf.constant([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])
    warp = Warp(turn, tf.zeros(3), tf.zeros([4, 4, 4, 3]))
    image, label = (tf.pad(a, [[1, 1]] * 3 + [[0, 0]] * (len(a.shape) - 3)) for a in (image, label))
    moved, turned = resample(image, label, warp, tf.constant([-1, -1, -1]), (4, 4, 4))
    inside = (slice(1, -1),) * 3
    expected = np.rot90(image.numpy()[inside], -1, (1, 2))
    np.testing.assert_allclose(moved, expected, atol=1e-4)
    np.testing.assert_array_equal(turned, np.rot90(label.numpy()[inside], -1, (1, 2)))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_rotations_are_rotations_and_as_often_and_as_far_as_asked(dimensions):
    settings = Spatial(rotation=30.0, p_rotation=0.4, p_scale=0.0)
    turned, angles = [], []
    for index in range(300):
        matrix = draw_spatial(tf.constant([9, index]), SIZES[dimensions], settings).matrix.numpy()
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(dimensions), atol=1e-5)
        turned.append(not np.array_equal(matrix, np.eye(dimensions)))
        if dimensions == 2 and turned[-1]:
            angles.append(math.degrees(math.atan2(matrix[1, 0], matrix[0, 0])))
    assert np.mean(turned) == pytest.approx(0.4, abs=0.08)
    if dimensions == 2:
        assert -30 <= min(angles) < -25 and 25 < max(angles) <= 30


def test_scales_lie_between_their_limits_evenly_in_their_logarithm():
    settings = Spatial(p_rotation=0.0, p_scale=1.0, scale=(0.5, 2.0))
    factors = [
        1 / draw_spatial(tf.constant([2, i]), SIZES[3], settings).matrix.numpy()[0, 0]
        for i in range(300)
    ]
    assert 0.5 <= min(factors) < 0.55 and 1.8 < max(factors) <= 2.0
    assert np.mean(np.log(factors)) == pytest.approx(0.0, abs=0.08)
