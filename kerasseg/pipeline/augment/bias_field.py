"""A smooth field, as receiver coils make it."""

import itertools

import numpy as np
import tensorflow as tf

from kerasseg.pipeline.augment.drawing import uniform
from kerasseg.pipeline.augment.moments import extremes
from kerasseg.pipeline.compiled import compiled
from kerasseg.settings.augment import BiasField


def draw_bias_field(seed: tf.Tensor, dimensions: int, settings: BiasField) -> tf.Tensor:
    """A coefficient for each term of the polynomial (T,), within +- strength / T^(1/2)."""
    count = len(_exponents(dimensions, settings.order))
    strength = settings.strength / count**0.5
    return uniform(seed, 0, [count], -strength, strength)


@compiled
def multiply_bias_field(image: tf.Tensor, coefficients: tf.Tensor, order: int) -> tf.Tensor:
    """Image (*spatial, C) times exp(polynomial), the same for all channels.

    The polynomial is of the coordinates, from -1 to 1 along each axis, with all terms of a degree
    from 1 to `order` (Van Leemput et al. 1999). Air (0) stays air by itself. Intensities are taken
    as distances from the lowest of z-scores, which a coil multiplies; their mean moves.
    """
    *sizes, _ = image.shape
    exponents = _exponents(len(sizes), order)
    field = tf.zeros([])
    # Horner's scheme would save little: the terms are few, and each is an outer product.
    for coefficient, powers in zip(tf.unstack(coefficients), exponents, strict=True):
        term = coefficient
        for axis, (size, power) in enumerate(zip(sizes, powers, strict=True)):
            shape = [1] * len(sizes)
            shape[axis] = size
            line = np.linspace(-1.0, 1.0, size, dtype=np.float32) ** power
            term *= tf.constant(line.reshape(shape))
        field += term
    lowest, _ = extremes(image, image != 0.0)
    changed = (image - lowest) * tf.exp(field)[..., tf.newaxis] + lowest
    return tf.where(image == 0.0, image, changed)


def _exponents(dimensions: int, order: int) -> list[tuple[int, ...]]:
    """Of every term of degree 1 to `order`."""
    every = itertools.product(range(order + 1), repeat=dimensions)
    return [powers for powers in every if 1 <= sum(powers) <= order]
