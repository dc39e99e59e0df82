import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasseg.config.model import ModelSettings
from kerasseg.models.unet import crop_like, pad_to_stride, unet

SIZES = [((7, 10), 4), ((1, 33), 8), ((16, 8), 8), ((5, 9, 7), 4), ((3, 8, 1), 2), ((4, 4, 4), 4)]


@pytest.mark.parametrize(("shape", "stride"), SIZES)
def test_padded_like_numpy_and_cropped_to_the_same(shape, stride):
    image = keras.Input((*[None] * len(shape), 3))
    padded = pad_to_stride(image, stride)
    network = keras.Model(image, [padded, crop_like(padded, image)])
    values = np.random.default_rng(0).normal(size=(2, *shape, 3)).astype(np.float32)
    found, back = network(values)
    ends = [(0, -size % stride) for size in shape]
    np.testing.assert_array_equal(found, np.pad(values, [(0, 0), *ends, (0, 0)]))
    np.testing.assert_array_equal(back, values)


def test_a_crop_with_a_stride_has_every_voxel_that_the_stride_meets():
    image, coarse = keras.Input((None, None, 1)), keras.Input((None, None, 2))
    network = keras.Model([image, coarse], crop_like(coarse, image, stride=4))
    values = np.random.default_rng(0).normal(size=(1, 5, 6, 2)).astype(np.float32)
    for shape in ((9, 13), (12, 16), (10, 14)):
        found = network([np.zeros((1, *shape, 1), np.float32), values])
        np.testing.assert_array_equal(found, values[:, :3, :4])
        assert np.zeros(shape)[::4, ::4].shape == (3, 4)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_long_axes_are_not_counted_in_half_precision(policy):
    keras.config.set_dtype_policy(policy)
    try:
        image = keras.Input((None, None, 1))
        network = keras.Model(image, crop_like(pad_to_stride(image, 16), image))
    finally:
        keras.config.set_dtype_policy("float32")
    values = np.arange(5003, dtype=np.float32).reshape(1, 5003, 1, 1)
    np.testing.assert_array_equal(network(values), values)


def test_a_network_of_an_odd_size_is_the_one_of_the_padded_image():
    network = unet(ModelSettings(features=(4, 6), bottleneck=8), 2)
    image = np.random.default_rng(0).normal(size=(1, 5, 9, 7, 2)).astype(np.float32)
    padded = np.pad(image, [(0, 0), (0, 3), (0, 3), (0, 1), (0, 0)])
    expected = np.asarray(network(padded))[:, :5, :9, :7]
    np.testing.assert_allclose(network(image), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("dimensions", "upsampling"),
    [(2, "interpolate"), (3, "transpose")],
)
@pytest.mark.all_only  # test_saved_model asks the exported network of a run at odd sizes
def test_one_graph_and_one_export_serve_every_size(tmp_path, dimensions, upsampling):
    settings = ModelSettings(
        dimensions=dimensions,
        features=(4, 6),
        bottleneck=8,
        upsampling=upsampling,
        attention_gates=True,
    )
    network = unet(settings, 2)
    spec = tf.TensorSpec((None, *[None] * dimensions, 2))
    traced = tf.function(lambda image: network(image, training=False), input_signature=[spec])
    network.export(tmp_path, verbose=False)
    exported = tf.saved_model.load(tmp_path)
    for shape in ((1, 7, 9, 6), (2, 4, 8, 12)):
        image = np.random.default_rng(0).normal(size=(*shape[: dimensions + 1], 2))
        image = image.astype(np.float32)
        expected = np.asarray(network(image))
        np.testing.assert_allclose(traced(image), expected, atol=1e-5)
        np.testing.assert_allclose(exported.serve(image), expected, atol=1e-5)


@pytest.mark.all_only  # test_training_model has XLA compile a whole step
@pytest.mark.parametrize("dimensions", [2, 3])
def test_xla_compiles_network_and_gradient(dimensions):
    """As Keras does on a GPU."""
    settings = ModelSettings(
        dimensions=dimensions, features=(4,), bottleneck=6, upsampling="interpolate"
    )
    network = unet(settings, 2)

    def gradients(image):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(network(image, training=True) ** 2)
        return tape.gradient(loss, network.trainable_variables)

    shape = (2, *(5, 7, 4)[:dimensions], 2)
    image = tf.constant(np.random.default_rng(0).normal(size=shape).astype(np.float32))
    for found, expected in zip(
        tf.function(gradients, jit_compile=True)(image), gradients(image), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-5)
