"""Random numbers that all transforms draw alike, from stateless seeds (2,)."""

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from scipy.special import ndtri

from kerasseg.pipeline.records import compiled

_QUANTILES = 1 << 16


def uniform(seed: tf.Tensor, stream: int, size: list[int], low: float, high: float) -> tf.Tensor:
    """Draw numbers evenly between `low` and `high`."""
    drawn = tf.random.stateless_uniform(size, tf.random.fold_in(seed, stream))
    return low + (high - low) * drawn


def happens(seed: tf.Tensor, stream: int, share: float, size: list[int]) -> tf.Tensor:
    """Draw booleans that are true with the probability `share`."""
    return tf.random.stateless_uniform(size, tf.random.fold_in(seed, stream)) < share


def of_channels(
    seed: tf.Tensor,
    stream: int,
    channels: int,
    span: tuple[float, float],
    share: float,
    still: float,
) -> tf.Tensor:
    """Draw a number of `span` for each channel (C,) of the drawn `share`.

    The other channels get `still`, which changes nothing.
    """
    drawn = uniform(seed, stream, [channels], *span)
    return tf.where(happens(seed, stream + 1, share, [channels]), drawn, still)


def normal(seed: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
    """Draw standard normal numbers (*size) float32 from 65,536 quantiles, within +-4.4.

    A third of the time of `tf.random.stateless_normal`, for fields of a number a voxel.
    """
    count = math.prod(size)
    bits = tf.random.stateless_uniform([-(-count // 4)], seed, None, None, tf.uint64)
    return _looked_up(tf.bitcast(bits, tf.uint16), tuple(size))


@compiled
def _looked_up(bits: tf.Tensor, size: tuple[int, ...]) -> tf.Tensor:
    quantiles = ndtri((np.arange(_QUANTILES) + 0.5) / _QUANTILES)
    quantiles = tf.constant(quantiles / quantiles.std(), tf.float32)
    chosen = tf.reshape(tf.cast(bits, tf.int32), [-1])[: math.prod(size)]
    return tf.reshape(tf.gather(quantiles, chosen), size)
