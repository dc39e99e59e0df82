"""Mirroring."""

from collections.abc import Sequence

import tensorflow as tf


def draw_flips(seed: tf.Tensor, axes: Sequence[int], share: float = 0.5) -> tf.Tensor:
    """Whether each of `axes` is mirrored, bool (len(axes),), each with probability `share`."""
    return tf.random.stateless_uniform([len(axes)], seed) < share


def flip(
    image: tf.Tensor, label: tf.Tensor, axes: Sequence[int], flips: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Image (*spatial, C) and label (*spatial) mirrored along those spatial `axes` where `flips`
    (len(axes),) is true."""
    chosen = tf.boolean_mask(tf.constant(axes, tf.int32), flips)
    return tf.reverse(image, chosen), tf.reverse(label, chosen)
