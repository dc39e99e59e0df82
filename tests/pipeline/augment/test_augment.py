"""Augmentation: replayable, true against scipy, harmless where it must be."""

import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from kerasseg.pipeline.augment.flip import draw_flips, flip
from kerasseg.pipeline.augment.intensity import (
    Intensity,
    IntensityRanges,
    change_intensity,
    draw_intensity,
)
from kerasseg.pipeline.augment.presets import augment
from kerasseg.pipeline.augment.warp_2d import Warp2D, WarpRanges, draw_warp_2d, warp_2d

HEIGHT, WIDTH, CHANNELS = 19, 26, 3
RANGES = WarpRanges(0.4, 0.2, 0.1, 0.1, 0.02, 5, 1.0, 1.0)


def slice_of_noise():
    random = np.random.default_rng(3)
    image = ndimage.gaussian_filter(random.normal(size=(HEIGHT, WIDTH, CHANNELS)), (2, 2, 0))
    label = (ndimage.gaussian_filter(random.normal(size=(HEIGHT, WIDTH)), 2) > 0).astype(np.uint8)
    return tf.constant(image, tf.float32), tf.constant(label * 3)


def still(**changes):
    knots = tf.zeros([RANGES.knots, RANGES.knots, 2])
    return Warp2D(tf.eye(2), tf.zeros(2), knots)._replace(**changes)


def test_a_warp_is_the_resampling_of_scipy():
    image, label = slice_of_noise()
    warp = draw_warp_2d(tf.constant([4, 7]), (HEIGHT, WIDTH), RANGES)
    warp = warp._replace(displacement=tf.zeros_like(warp.displacement))
    moved, moved_label = warp_2d(image, label, warp)
    centre = np.array([(HEIGHT - 1) / 2, (WIDTH - 1) / 2])
    matrix = warp.matrix.numpy()
    offset = centre + warp.shift.numpy() - matrix @ centre
    for channel in range(CHANNELS):
        expected = ndimage.affine_transform(
            image[..., channel].numpy(), matrix, offset, order=1, mode="grid-constant"
        )
        np.testing.assert_allclose(moved[..., channel], expected, atol=1e-4)
    expected = ndimage.affine_transform(
        label.numpy(), matrix, offset, order=0, mode="grid-constant"
    )
    assert np.mean(moved_label.numpy() == expected) > 0.99, "rounding may differ at a half"
    assert abs(np.linalg.det(matrix) - 1) > 0.01, "the test's warp does scale"


def test_elastic_deformation_is_the_resampling_of_scipy():
    image, label = slice_of_noise()
    knots = tf.random.stateless_normal([5, 5, 2], [1, 2]) * 1.5
    moved, _ = warp_2d(image, label, still(displacement=knots))
    flow = tf.image.resize(knots, [HEIGHT, WIDTH], "bicubic").numpy()
    rows, columns = np.meshgrid(np.arange(HEIGHT), np.arange(WIDTH), indexing="ij")
    places = np.stack([rows + flow[..., 0], columns + flow[..., 1]])
    for channel in range(CHANNELS):
        expected = ndimage.map_coordinates(
            image[..., channel].numpy(), places, order=1, mode="grid-constant"
        )
        np.testing.assert_allclose(moved[..., channel], expected, atol=1e-4)


def test_a_quarter_turn_turns_a_square():
    image = tf.reshape(tf.range(16.0 * 2), [4, 4, 2])
    label = tf.reshape(tf.range(16), [4, 4])
    turn = tf.constant([[0.0, -1.0], [1.0, 0.0]])
    moved, moved_label = warp_2d(image, label, still(matrix=turn))
    np.testing.assert_allclose(moved, np.rot90(image.numpy(), -1), atol=1e-5)
    np.testing.assert_array_equal(moved_label, np.rot90(label.numpy(), -1))


def test_identity_at_zero_strength():
    image, label = slice_of_noise()
    nothing = WarpRanges(0, 0, 0, 0, 0, 4, 1.0, 1.0)
    warp = draw_warp_2d(tf.constant([1, 2]), (HEIGHT, WIDTH), nothing)
    moved, moved_label = warp_2d(image, label, warp)
    np.testing.assert_allclose(moved, image, atol=1e-5)
    np.testing.assert_array_equal(moved_label, label)
    same = change_intensity(image, draw_intensity(tf.constant([1, 2]), CHANNELS, IntensityRanges()))
    np.testing.assert_allclose(same, image, atol=1e-5)


def test_flips_mirror_image_and_label_together():
    image, label = slice_of_noise()
    mirrored, mirrored_label = flip(image, label, (0, 1), tf.constant([False, True]))
    np.testing.assert_array_equal(mirrored, image.numpy()[:, ::-1])
    np.testing.assert_array_equal(mirrored_label, label.numpy()[:, ::-1])
    drawn = np.array([draw_flips(tf.constant([0, i]), (0, 1, 2)) for i in range(200)])
    assert np.all(np.abs(drawn.mean(axis=0) - 0.5) < 0.12)


def test_intensities_by_the_formula():
    image, _ = slice_of_noise()
    image = tf.where(image > 0.3, 0.0, image)  # air
    gamma, contrast = tf.constant([0.5, 1.0, 2.0]), tf.constant([1.0, 1.2, 0.8])
    brightness = tf.constant([0.0, 0.3, -0.2])
    change = Intensity(gamma, contrast, brightness, tf.constant(0.0), tf.constant([0, 1]))
    changed = change_intensity(image, change).numpy()
    pixels = image.numpy()
    for channel in range(CHANNELS):
        values = pixels[..., channel]
        low, high = values.min(), values.max()
        expected = ((values - low) / (high - low)) ** gamma[channel] * (high - low) + low
        expected = expected * contrast[channel] + brightness[channel]
        expected = np.where(values == 0, 0, expected)
        np.testing.assert_allclose(changed[..., channel], expected, atol=1e-5)
    noisy = change_intensity(image, change._replace(noise=tf.constant(0.5))).numpy()
    assert np.std((noisy - changed)[pixels != 0]) == pytest.approx(0.5, rel=0.1)
    assert not noisy[pixels == 0].any()


def test_neighbouring_slices_change_like_their_modality():
    image, _ = slice_of_noise()
    drawn = draw_intensity(tf.constant([1, 5]), CHANNELS, IntensityRanges(0.3, 0.2, 0.2))
    stacked = tf.concat([image, image, image], -1)
    changed = change_intensity(stacked, drawn).numpy()
    expected = change_intensity(image, drawn).numpy()
    np.testing.assert_allclose(changed, np.concatenate([expected] * 3, -1), atol=1e-6)


@pytest.mark.parametrize(
    ("preset", "shape"), [("light", (9, 12, 10)), ("light", (12, 10)), ("classic_2d", (19, 26))]
)
def test_a_preset_is_replayed_by_its_seed_in_a_dataset_too(preset, shape):
    random = np.random.default_rng(0)
    image = tf.constant(random.normal(size=(*shape, 2)), tf.float16)
    label = tf.constant(random.integers(0, 4, shape), tf.uint8)

    def apply(seed):
        return augment(preset, image, label, 2, seed)

    seeds = tf.constant([[0, i] for i in range(6)])
    mapped = list(tf.data.Dataset.from_tensor_slices(seeds).map(apply))
    for seed, (pixels, ids) in zip(seeds, mapped, strict=True):
        again, same_ids = apply(seed)
        np.testing.assert_allclose(pixels, again, atol=2e-3)
        np.testing.assert_array_equal(ids, same_ids)
        assert pixels.dtype == tf.float16 and ids.dtype == tf.uint8
        assert np.isfinite(pixels.numpy()).all()
        assert set(np.unique(ids)) <= set(np.unique(label)), "never a new value"
    different = {pixels.numpy().tobytes() for pixels, _ in mapped}
    assert len(different) == len(mapped)


def test_none_changes_nothing():
    image, label = slice_of_noise()
    assert augment("none", image, label, CHANNELS, tf.constant([0, 0])) == (image, label)


def test_a_rotation_turns_by_its_angle():
    ranges = WarpRanges(math.radians(30), 0, 0, 0, 0, 4, 1.0, 0.0)
    angles = []
    for index in range(300):
        matrix = draw_warp_2d(tf.constant([9, index]), (8, 8), ranges).matrix.numpy()
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(2), atol=1e-5)
        angles.append(math.degrees(math.atan2(matrix[1, 0], matrix[0, 0])))
    assert -30 <= min(angles) < -25 and 25 < max(angles) <= 30
