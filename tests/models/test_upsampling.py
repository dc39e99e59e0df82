import keras
import numpy as np
import pytest
from scipy import ndimage

from kerasseg.config.model import ModelSettings
from kerasseg.models.blocks import interpolated, upsampled


def linear(values):
    """Twice the resolution by scipy: centres at half-integers, edges repeated."""
    axes = [(np.arange(2 * size) + 0.5) / 2 - 0.5 for size in values.shape[1:-1]]
    places = np.meshgrid(*axes, indexing="ij")
    result = np.empty((values.shape[0], *places[0].shape, values.shape[-1]), np.float32)
    for sample in range(values.shape[0]):
        for channel in range(values.shape[-1]):
            result[sample, ..., channel] = ndimage.map_coordinates(
                values[sample, ..., channel], places, order=1, mode="nearest"
            )
    return result


@pytest.mark.parametrize("shape", [(5, 3), (1, 4), (4, 3, 5), (1, 2, 1)])
def test_interpolation_is_linear(shape):
    x = keras.Input((*[None] * len(shape), 3))
    network = keras.Model(x, interpolated(x))
    values = np.random.default_rng(0).normal(size=(2, *shape, 3)).astype(np.float32)
    np.testing.assert_allclose(network(values), linear(values), atol=1e-6)


def test_in_the_plane_it_is_what_keras_does():
    x = keras.Input((None, None, 3))
    network = keras.Model(x, interpolated(x))
    values = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
    expected = keras.layers.UpSampling2D(2, interpolation="bilinear")(values)
    np.testing.assert_allclose(network(values), expected, atol=1e-6)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_both_ways_have_the_same_parameters(dimensions):
    counts = set()
    for way in ("transpose", "interpolate"):
        x = keras.Input((*[None] * dimensions, 6))
        settings = ModelSettings(dimensions=dimensions, upsampling=way)
        network = keras.Model(x, upsampled(x, settings, 4, "level"))
        values = np.ones((1, *(3, 5, 4)[:dimensions], 6), np.float32)
        assert network(values).shape == (1, *(6, 10, 8)[:dimensions], 4)
        counts.add(network.count_params())
    assert counts == {2**dimensions * 6 * 4 + 4}
