"""Changes of the intensities voxel by voxel: gamma, contrast, noise, dropout and the like.

Each transform is a function that draws its parameters from a seed and one that applies them. Air
(0) stays air; statistics are those of the tissue.
"""

from typing import NamedTuple

import tensorflow as tf

from kerasseg.config import augment
from kerasseg.pipeline.augment.drawing import happens, normal, of_channels, uniform
from kerasseg.pipeline.records import compiled


def draw_brightness(seed: tf.Tensor, channels: int, settings: augment.Brightness) -> tf.Tensor:
    """Draw the number that is added to each channel (C,)."""
    span = (-settings.add, settings.add)
    return of_channels(seed, 0, channels, span, settings.p_channel, 0.0)


@compiled
def add_brightness(image: tf.Tensor, added: tf.Tensor) -> tf.Tensor:
    """Add `added` (C,) to an image (*spatial, C). Air (0) stays air."""
    return tf.where(image == 0.0, image, image + added)


def draw_channel_dropout(
    seed: tf.Tensor, channels: int, settings: augment.ChannelDropout
) -> tf.Tensor:
    """Draw the channels (C,) bool that stay; one at least."""
    drawn = uniform(seed, 0, [channels], 0.0, 1.0)
    return (drawn >= settings.p_channel) | (drawn == tf.reduce_max(drawn))


@compiled
def drop_channels(image: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
    """Set the channels of an image (*spatial, C) that are not `kept` (C,) to 0."""
    return tf.where(kept, image, 0.0)


def draw_channel_copy(seed: tf.Tensor, channels: int, settings: augment.ChannelCopy) -> tf.Tensor:
    """Draw the channels (C,) bool that are replaced."""
    return happens(seed, 0, settings.p_channel, [channels])


@compiled
def copy_channel(image: tf.Tensor, replaced: tf.Tensor, source: int, modalities: int) -> tf.Tensor:
    """Replace the `replaced` (C,) of an image (*spatial, C) by `source`, a modality of their slice.

    C is `modalities` for each of the slices (2.5-D).
    """
    copies = tf.repeat(image[..., source::modalities], modalities, axis=-1)
    return tf.where(replaced, copies, image)


class Boxes(NamedTuple):
    """The first voxels and the ends (N, n) int32 of boxes."""

    first: tf.Tensor
    end: tf.Tensor


def draw_coarse_dropout(
    seed: tf.Tensor, size: tuple[int, ...], settings: augment.CoarseDropout
) -> Boxes:
    """Draw boxes within patches of `size` (n,) voxels."""
    extent = tf.constant(size, tf.float32)
    shape = [settings.boxes, len(size)]
    length = tf.maximum(tf.round(uniform(seed, 0, shape, *settings.size) * extent), 1.0)
    first = tf.floor(uniform(seed, 1, shape, 0.0, 1.0) * (extent - length + 1.0))
    return Boxes(tf.cast(first, tf.int32), tf.cast(first + length, tf.int32))


@compiled
def drop_boxes(image: tf.Tensor, boxes: Boxes) -> tf.Tensor:
    """Set the voxels of an image (*spatial, C) inside of the boxes to 0."""
    rank = len(image.shape) - 1
    inside = tf.constant(False)
    for first, end in zip(tf.unstack(boxes.first), tf.unstack(boxes.end), strict=True):
        box = tf.constant(True)
        for axis in range(rank):
            line = tf.range(image.shape[axis])
            within = (line >= first[axis]) & (line < end[axis])
            box &= tf.reshape(within, [-1 if a == axis else 1 for a in range(rank)])
        inside |= box
    return tf.where(inside[..., tf.newaxis], 0.0, image)


def spatial_axes(image: tf.Tensor) -> list[int]:
    """Return the spatial axes of an image (*spatial, C)."""
    return list(range(len(image.shape) - 1))


def moments(image: tf.Tensor, tissue: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return mean and standard deviation (C,) of the tissue of an image (*spatial, C).

    `tissue` is bool and as large; a channel without any has the mean 0 and the deviation 1.
    """
    axes = spatial_axes(image)
    weight = tf.cast(tissue, image.dtype)
    count = tf.maximum(tf.reduce_sum(weight, axes), 1.0)
    mean = tf.reduce_sum(image * weight, axes) / count
    variance = tf.reduce_sum(tf.square(image - mean) * weight, axes) / count
    some = tf.reduce_any(tissue, axes)
    return mean, tf.where(some, tf.sqrt(variance), 1.0)


def extremes(image: tf.Tensor, tissue: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the lowest and highest intensity (C,) of the tissue; 0 in a channel without any."""
    axes = spatial_axes(image)
    big = tf.constant(image.dtype.max, image.dtype)
    low = tf.reduce_min(tf.where(tissue, image, big), axes)
    high = tf.reduce_max(tf.where(tissue, image, -big), axes)
    some = tf.reduce_any(tissue, axes)
    return tf.where(some, low, 0.0), tf.where(some, high, 0.0)


def draw_contrast(seed: tf.Tensor, channels: int, settings: augment.Contrast) -> tf.Tensor:
    """Draw a factor for each channel (C,)."""
    return of_channels(seed, 0, channels, settings.factor, settings.p_channel, 1.0)


@compiled
def change_contrast(image: tf.Tensor, factor: tf.Tensor, *, keep_range: bool = True) -> tf.Tensor:
    """Return mean + factor (C,) * (image - mean) for an image (*spatial, C). Air (0) stays air.

    `keep_range` clips the result to the extremes from before.
    """
    tissue = image != 0.0
    mean, _ = moments(image, tissue)
    changed = mean + factor * (image - mean)
    if keep_range:
        low, high = extremes(image, tissue)
        changed = tf.clip_by_value(changed, low, high)
    return tf.where(tissue & (factor != 1.0), changed, image)


def draw_gamma(seed: tf.Tensor, channels: int, settings: augment.Gamma) -> tf.Tensor:
    """Draw an exponent for each channel (C,); 1 leaves it as it is."""
    return of_channels(seed, 0, channels, settings.gamma, settings.p_channel, 1.0)


@compiled
def change_gamma(
    image: tf.Tensor, gamma: tf.Tensor, *, invert: bool = False, keep_moments: bool = True
) -> tf.Tensor:
    """Image (*spatial, C) float32, its tissue scaled to 0..1 between its extremes, to the power of
    `gamma` (C,), and scaled back. Air (0) stays air.

    `invert` does so to the negative image; with `keep_moments` mean and standard deviation of the
    tissue stay as they were (nnU-Net's "retain stats").
    """
    tissue = image != 0.0
    source = -image if invert else image
    low, high = extremes(source, tissue)
    width = tf.maximum(high - low, 1e-6)
    changed = _power(tf.clip_by_value((source - low) / width, 0.0, 1.0), gamma) * width + low
    changed = -changed if invert else changed
    if keep_moments:
        mean, sd = moments(image, tissue)
        new_mean, new_sd = moments(changed, tissue)
        changed = (changed - new_mean) / tf.maximum(new_sd, 1e-6) * sd + mean
    return tf.where(tissue & (gamma != 1.0), changed, image)


def _power(base: tf.Tensor, exponent: tf.Tensor) -> tf.Tensor:
    """`base` of 0..1 to a positive exponent; XLA computes these two four times as fast as pow."""
    return tf.where(base > 0.0, tf.exp(exponent * tf.math.log(base)), 0.0)


class Noise(NamedTuple):
    """Standard deviation (), and the seed (2,) of the field."""

    sd: tf.Tensor
    seed: tf.Tensor


def draw_gaussian_noise(seed: tf.Tensor, settings: augment.GaussianNoise) -> Noise:
    """Draw one standard deviation for all channels."""
    variance = uniform(seed, 0, [], *settings.variance)
    return Noise(tf.sqrt(variance), tf.random.fold_in(seed, 1))


def add_gaussian_noise(image: tf.Tensor, noise: Noise) -> tf.Tensor:
    """Add Gaussian noise to an image (*spatial, C). Air (0) stays air."""
    return _add_gaussian(image, noise.sd, normal(noise.seed, image.shape))


@compiled
def _add_gaussian(image: tf.Tensor, sd: tf.Tensor, field: tf.Tensor) -> tf.Tensor:
    return tf.where(image == 0.0, image, image + sd * field)


def draw_rician_noise(seed: tf.Tensor, settings: augment.RicianNoise) -> Noise:
    """One standard deviation for all channels."""
    return Noise(uniform(seed, 0, [], *settings.sd), tf.random.fold_in(seed, 1))


def add_rician_noise(image: tf.Tensor, noise: Noise) -> tf.Tensor:
    """Return sqrt((signal + n1)^2 + n2^2) for an image (*spatial, C), n1 and n2 Gaussian.

    The signal is the intensity above the lowest of the tissue, as magnitudes begin at 0 and
    z-scores do not (Gudbjartsson and Patz 1995). Air (0) stays air.
    """
    return _add_rician(image, noise.sd, normal(noise.seed, [2, *image.shape]))


@compiled
def _add_rician(image: tf.Tensor, sd: tf.Tensor, fields: tf.Tensor) -> tf.Tensor:
    tissue = image != 0.0
    lowest, _ = extremes(image, tissue)
    first, second = tf.unstack(fields)
    magnitude = tf.sqrt(tf.square(image - lowest + sd * first) + tf.square(sd * second))
    return tf.where(tissue & (sd > 0.0), magnitude + lowest, image)


def draw_scaling(seed: tf.Tensor, channels: int, settings: augment.Scaling) -> tf.Tensor:
    """A factor for each channel (C,)."""
    return of_channels(seed, 0, channels, settings.factor, settings.p_channel, 1.0)


@compiled
def scale_intensity(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Multiply an image (*spatial, C) by `factor` (C,); air (0) stays air by itself."""
    return image * factor
