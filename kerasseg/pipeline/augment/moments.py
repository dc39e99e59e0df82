"""Statistics of the channels of a patch, over its tissue."""

import tensorflow as tf


def spatial_axes(image: tf.Tensor) -> list[int]:
    """Of an image (*spatial, C)."""
    return list(range(len(image.shape) - 1))


def moments(image: tf.Tensor, tissue: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and standard deviation (C,) of image (*spatial, C) where `tissue` (bool, as large); 0
    and 1 of a channel without any."""
    axes = spatial_axes(image)
    weight = tf.cast(tissue, image.dtype)
    count = tf.maximum(tf.reduce_sum(weight, axes), 1.0)
    mean = tf.reduce_sum(image * weight, axes) / count
    variance = tf.reduce_sum(tf.square(image - mean) * weight, axes) / count
    some = tf.reduce_any(tissue, axes)
    return mean, tf.where(some, tf.sqrt(variance), 1.0)


def extremes(image: tf.Tensor, tissue: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Lowest and highest intensity (C,) of the tissue; 0 and 0 of a channel without any."""
    axes = spatial_axes(image)
    big = tf.constant(image.dtype.max, image.dtype)
    low = tf.reduce_min(tf.where(tissue, image, big), axes)
    high = tf.reduce_max(tf.where(tissue, image, -big), axes)
    some = tf.reduce_any(tissue, axes)
    return tf.where(some, low, 0.0), tf.where(some, high, 0.0)
