"""Every change of intensities: by its formula, air stays air, nothing at zero strength."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from kerasseg.config import augment as settings
from kerasseg.pipeline.augment.artefacts import (
    Ghosts,
    add_ghosts,
    blur,
    draw_bias_field,
    draw_blur,
    draw_ghosting,
    draw_low_resolution,
    lower_resolution,
    multiply_bias_field,
)
from kerasseg.pipeline.augment.intensity import (
    Boxes,
    Noise,
    add_brightness,
    add_gaussian_noise,
    add_rician_noise,
    change_contrast,
    change_gamma,
    copy_channel,
    draw_brightness,
    draw_channel_dropout,
    draw_coarse_dropout,
    draw_contrast,
    draw_gamma,
    draw_gaussian_noise,
    draw_rician_noise,
    draw_scaling,
    drop_boxes,
    drop_channels,
    scale_intensity,
)

SHAPES = [(9, 12, 14, 3), (13, 16, 3)]
SEED = tf.constant([3, 4])


def scan(shape, air=True):
    """z-scores with a corner of air."""
    pixels = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    if air:
        pixels[tuple(slice(0, n // 2) for n in shape[:-1])] = 0
    return pixels


def tissue(pixels, channel):
    return pixels[..., channel][pixels[..., channel] != 0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("keep_moments", [False, True])
def test_gamma(shape, invert, keep_moments):
    pixels = scan(shape)
    gamma = tf.constant([0.7, 1.0, 1.4])
    changed = change_gamma(
        tf.constant(pixels), gamma, invert=invert, keep_moments=keep_moments
    ).numpy()
    assert not changed[pixels == 0].any()
    np.testing.assert_array_equal(changed[..., 1], pixels[..., 1])
    for channel in (0, 2):
        values = tissue(pixels, channel).astype(float) * (-1 if invert else 1)
        low, width = values.min(), np.ptp(values)
        expected = ((values - low) / width) ** float(gamma[channel]) * width + low
        expected *= -1 if invert else 1
        if keep_moments:
            before = tissue(pixels, channel)
            expected = (expected - expected.mean()) / expected.std() * before.std() + before.mean()
        np.testing.assert_allclose(
            changed[..., channel][pixels[..., channel] != 0], expected, atol=1e-4
        )


@pytest.mark.parametrize("shape", SHAPES)
def test_brightness_scaling_and_contrast(shape):
    pixels = scan(shape)
    added, factor = np.float32([0.3, 0.0, -0.4]), np.float32([0.8, 1.0, 1.3])
    image = tf.constant(pixels)
    np.testing.assert_allclose(
        add_brightness(image, tf.constant(added)), np.where(pixels == 0, 0, pixels + added)
    )
    np.testing.assert_allclose(scale_intensity(image, tf.constant(factor)), pixels * factor)
    clipped = change_contrast(image, tf.constant(factor)).numpy()
    wide = change_contrast(image, tf.constant(factor), keep_range=False).numpy()
    for channel in range(3):
        values = tissue(pixels, channel)
        expected = values.mean() + factor[channel] * (values - values.mean())
        inside = pixels[..., channel] != 0
        np.testing.assert_allclose(wide[..., channel][inside], expected, atol=1e-5)
        np.testing.assert_allclose(
            clipped[..., channel][inside], expected.clip(values.min(), values.max()), atol=1e-5
        )
    assert not clipped[pixels == 0].any() and not wide[pixels == 0].any()


@pytest.mark.parametrize("shape", SHAPES)
def test_noise_has_its_deviation_and_its_seed(shape):
    pixels = scan((*[n * 3 for n in shape[:-1]], 3))
    image, noise = tf.constant(pixels), Noise(tf.constant(0.5), SEED)
    noisy = add_gaussian_noise(image, noise).numpy()
    assert np.std((noisy - pixels)[pixels != 0]) == pytest.approx(0.5, rel=0.05)
    assert not noisy[pixels == 0].any()
    np.testing.assert_array_equal(noisy, add_gaussian_noise(image, noise))
    other = add_gaussian_noise(image, noise._replace(seed=SEED + 1)).numpy()
    assert (
        abs(np.corrcoef((noisy - pixels)[pixels != 0], (other - pixels)[pixels != 0])[0, 1]) < 0.1
    )


def test_rician_noise_is_the_magnitude_of_two_channels():
    """Of no signal at all a Rayleigh distribution: mean sd * sqrt(pi / 2)."""
    pixels = np.full((40, 50, 1), -2.0, np.float32)
    pixels[0, 0] = -2.0 - 1e-4  # the lowest of the tissue
    sd = 0.3
    noisy = add_rician_noise(tf.constant(pixels), Noise(tf.constant(sd), SEED)).numpy()
    assert np.mean(noisy + 2) == pytest.approx(sd * np.sqrt(np.pi / 2), rel=0.05)
    strong = np.concatenate([pixels, np.full((40, 50, 1), 5.0, np.float32)], 1)
    noisy = add_rician_noise(tf.constant(strong), Noise(tf.constant(sd), SEED)).numpy()
    assert np.std(noisy[:, 50:]) == pytest.approx(sd, rel=0.05), "a strong signal: Gaussian"
    still = add_rician_noise(tf.constant(strong), Noise(tf.constant(0.0), SEED))
    np.testing.assert_array_equal(still, strong)


@pytest.mark.parametrize("shape", SHAPES)
def test_blur_is_the_one_of_scipy(shape):
    pixels = scan(shape)
    sigma = [0.5, 0.0, 1.4]
    blurred = blur(tf.constant(pixels), tf.constant(sigma)).numpy()
    for channel, value in enumerate(sigma):
        expected = pixels[..., channel]
        if value:
            expected = np.where(
                expected == 0, 0, ndimage.gaussian_filter(expected, value, mode="reflect")
            )
        np.testing.assert_allclose(blurred[..., channel], expected, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_low_resolution_is_down_by_nearest_and_up_by_cubic(shape):
    pixels, zoom = scan(shape), [0.5, 1.0, 0.7]
    lowered = lower_resolution(tf.constant(pixels), tf.constant(zoom)).numpy()
    for channel, value in enumerate(zoom):
        expected = pixels[..., channel].astype(float)
        for axis, n in enumerate(shape[:-1]):
            expected = np.apply_along_axis(down_and_up, axis, expected, value, n)
        if value == 1.0:
            expected = pixels[..., channel]
        expected = np.where(pixels[..., channel] == 0, 0, expected)
        np.testing.assert_allclose(lowered[..., channel], expected, atol=1e-4)


def down_and_up(line, zoom, n):
    """One line, voxel by voxel."""
    count = max(round(zoom * n), 1)
    coarse = [line[min(int((j + 0.5) * n / count), n - 1)] for j in range(count)]
    result = np.zeros(n)
    for i in range(n):
        x = (i + 0.5) * count / n - 0.5
        for j in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
            d, a = abs(x - j), -0.75
            weight = (
                (a + 2) * d**3 - (a + 3) * d**2 + 1
                if d <= 1
                else a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
                if d < 2
                else 0
            )
            result[i] += weight * coarse[min(max(j, 0), count - 1)]
    return result


@pytest.mark.parametrize("shape", SHAPES)
def test_ghosts_are_weaker_lines_of_k_space(shape):
    pixels = scan(shape, air=False)
    axes = tuple(range(len(shape) - 1))
    for number, axis in enumerate(axes):
        ghosts = Ghosts(tf.constant(number), tf.constant(3.0), tf.constant(0.6))
        n = shape[axis]
        frequency = np.abs(np.fft.fftfreq(n, 1 / n))
        gain = np.where((frequency % 3 == 0) & (frequency > 0.05 * n / 2), 0.4, 1.0)
        lines = [n if a == axis else 1 for a in range(len(shape))]
        k_space = np.fft.fft(pixels, axis=axis) * gain.reshape(lines)
        expected = np.fft.ifft(k_space, axis=axis).real
        np.testing.assert_allclose(
            add_ghosts(tf.constant(pixels), axes, ghosts), expected, atol=1e-4
        )
        assert np.abs(expected - pixels).max() > 0.1
        np.testing.assert_allclose(expected.mean(axis), pixels.mean(axis), atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_bias_field_is_a_smooth_factor(shape):
    pixels = scan(shape)
    chosen = settings.BiasField(strength=0.5, order=2)
    coefficients = draw_bias_field(SEED, len(shape) - 1, chosen)
    changed = multiply_bias_field(tf.constant(pixels), coefficients, 2).numpy()
    assert not changed[pixels == 0].any()
    low = [tissue(pixels, c).min() for c in range(3)]
    inside = (pixels != 0).all(-1) & (pixels > np.array(low) + 0.1).all(-1)
    fields = [
        np.log((changed[..., c] - low[c])[inside] / (pixels[..., c] - low[c])[inside])
        for c in range(3)
    ]
    np.testing.assert_allclose(fields[0], fields[1], atol=1e-3)
    lines = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape[:-1]], indexing="ij")
    terms = [lines[a] * lines[b] for a in range(len(lines)) for b in range(a, len(lines))]
    terms += lines
    basis = np.stack([t[inside] for t in terms], 1)
    fit = np.linalg.lstsq(basis, fields[0], rcond=None)[0]
    np.testing.assert_allclose(basis @ fit, fields[0], atol=1e-3)
    assert np.abs(fields[0]).max() > 0.02
    still = multiply_bias_field(tf.constant(pixels), coefficients * 0, 2)
    np.testing.assert_allclose(still, pixels, atol=1e-6)


def test_a_bias_field_keeps_to_its_strength():
    """The largest logarithm of a patch is drawn evenly up to the strength, which none exceeds."""
    chosen = settings.BiasField(strength=0.5, order=3)
    pixels = np.full((9, 12, 14, 1), 2.0, np.float32)
    pixels[4, 6, 7] = 1.0  # the lowest, from which the field is measured
    largest = []
    for index in range(40):
        coefficients = draw_bias_field(tf.constant([2, index]), 3, chosen)
        changed = multiply_bias_field(pixels, coefficients, 3)
        largest.append(np.abs(np.log(changed.numpy()[pixels > 1] - 1)).max())
    assert max(largest) <= 0.5
    assert max(largest) > 0.3 and np.mean(largest) > 0.12


def test_modalities_become_copies_of_one_slice_by_slice():
    pixels = scan((9, 12, 14, 6), air=False)  # two slices of three modalities
    replaced = tf.constant([True, False, True, True, False, True])
    copied = copy_channel(tf.constant(pixels), replaced, 1, 3)
    np.testing.assert_array_equal(copied, pixels[..., [1, 1, 1, 4, 4, 4]])
    none = copy_channel(tf.constant(pixels), tf.zeros([6], tf.bool), 1, 3)
    np.testing.assert_array_equal(none, pixels)


def test_dropouts_set_to_zero_and_leave_something():
    pixels = scan((9, 12, 14, 3), air=False)
    kept = tf.constant([True, False, True])
    np.testing.assert_array_equal(drop_channels(tf.constant(pixels), kept), pixels * [1, 0, 1])
    every = settings.ChannelDropout(p_channel=1.0)
    for index in range(20):
        assert np.sum(draw_channel_dropout(tf.constant([0, index]), 3, every)) == 1
    boxes = Boxes(tf.constant([[0, 2, 3], [5, 5, 5]]), tf.constant([[4, 4, 9], [9, 6, 6]]))
    expected = pixels.copy()
    expected[0:4, 2:4, 3:9] = 0
    expected[5:9, 5:6, 5:6] = 0
    np.testing.assert_array_equal(drop_boxes(tf.constant(pixels), boxes), expected)
    for index in range(20):
        drawn = draw_coarse_dropout(tf.constant([1, index]), (9, 12, 14), settings.CoarseDropout())
        sides = drawn.end - drawn.first
        assert np.all(drawn.first >= 0) and np.all(drawn.end <= [9, 12, 14])
        assert np.all(sides >= 1) and np.all(sides <= np.ceil(0.2 * np.array([9, 12, 14])))


@pytest.mark.parametrize(
    ("draw", "chosen", "still", "low", "high"),
    [
        (draw_gamma, settings.Gamma(p_channel=0.5), 1.0, 0.7, 1.5),
        (draw_brightness, settings.Brightness(add=0.3, p_channel=0.5), 0.0, -0.3, 0.3),
        (draw_scaling, settings.Scaling(p_channel=0.5), 1.0, 0.75, 1.25),
        (draw_contrast, settings.Contrast(p_channel=0.5), 1.0, 0.75, 1.25),
        (draw_blur, settings.Blur(p_channel=0.5), 0.0, 0.5, 1.0),
        (draw_low_resolution, settings.LowResolution(p_channel=0.5), 1.0, 0.5, 1.0),
    ],
)
def test_parameters_lie_in_their_range_and_half_the_channels_are_left(
    draw, chosen, still, low, high
):
    drawn = np.array([draw(tf.constant([7, i]), 4, chosen) for i in range(200)])
    changed = drawn[drawn != still]
    assert changed.size / drawn.size == pytest.approx(0.5, abs=0.06)
    assert low <= changed.min() < low + 0.1 * (high - low)
    assert high - 0.1 * (high - low) < changed.max() <= high


def test_noise_and_ghosts_are_drawn_in_their_range():
    sds = [
        float(
            draw_gaussian_noise(
                tf.constant([1, i]), settings.GaussianNoise(variance=(0.01, 0.09))
            ).sd
        )
        for i in range(100)
    ]
    assert 0.1 <= min(sds) < 0.13 and 0.27 < max(sds) <= 0.3
    sds = [
        float(draw_rician_noise(tf.constant([1, i]), settings.RicianNoise(sd=(0.1, 0.3))).sd)
        for i in range(100)
    ]
    assert 0.1 <= min(sds) < 0.13 and 0.27 < max(sds) <= 0.3
    ghosts = [draw_ghosting(tf.constant([1, i]), 2, settings.Ghosting()) for i in range(100)]
    assert {int(g.axis) for g in ghosts} == {0, 1}
    assert {int(g.count) for g in ghosts} == {2, 3, 4}
