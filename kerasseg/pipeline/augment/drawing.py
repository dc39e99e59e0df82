"""Random numbers that all transforms draw alike, from stateless seeds (2,)."""

import tensorflow as tf


def uniform(seed: tf.Tensor, stream: int, size: list[int], low: float, high: float) -> tf.Tensor:
    """Even between `low` and `high`."""
    drawn = tf.random.stateless_uniform(size, tf.random.fold_in(seed, stream))
    return low + (high - low) * drawn


def happens(seed: tf.Tensor, stream: int, share: float, size: list[int]) -> tf.Tensor:
    """True with probability `share`."""
    return tf.random.stateless_uniform(size, tf.random.fold_in(seed, stream)) < share


def of_channels(
    seed: tf.Tensor,
    stream: int,
    channels: int,
    span: tuple[float, float],
    share: float,
    still: float,
) -> tf.Tensor:
    """A number of `span` for each channel (C,), and `still`, which changes nothing, for those that
    are not of the drawn `share`."""
    drawn = uniform(seed, stream, [channels], *span)
    return tf.where(happens(seed, stream + 1, share, [channels]), drawn, still)
