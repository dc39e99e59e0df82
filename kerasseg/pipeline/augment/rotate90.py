"""Quarter turns."""

import tensorflow as tf


def draw_quarters(seed: tf.Tensor) -> tf.Tensor:
    """How many quarter turns () int32, 1 to 3."""
    return tf.random.stateless_uniform([], seed, 1, 4, tf.int32)


def rotate90(
    image: tf.Tensor, label: tf.Tensor, axes: tuple[int, int], quarters: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Image (*spatial, C) and label (*spatial) turned from the first of two spatial `axes` of the
    same size to the second, as numpy's rot90 does."""

    def turned(array: tf.Tensor) -> tf.Tensor:
        order = list(range(len(array.shape)))
        order[axes[0]], order[axes[1]] = order[axes[1]], order[axes[0]]
        return tf.switch_case(
            tf.math.floormod(quarters, 4),
            [
                lambda: array,
                lambda: tf.transpose(tf.reverse(array, [axes[1]]), order),
                lambda: tf.reverse(array, axes),
                lambda: tf.reverse(tf.transpose(array, order), [axes[1]]),
            ],
        )

    return turned(image), turned(label)
