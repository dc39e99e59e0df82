"""What every network must be able to do; one battery for all of them."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kerasseg import anatomy
from kerasseg.config.model import ModelSettings
from kerasseg.models.build import build_network, float32_twin

DEFAULT_SHAPES = ((1, 7, 10, 5), (2, 8, 4, 12))
"""Batch and depth, height, width: odd sizes and a batch of one, and sizes that are divisible."""

_TOLERANCE = {"mixed_float16": 0.003, "mixed_bfloat16": 0.02}
"""Mean difference of the probabilities from the float32 twin's."""


def build(settings: ModelSettings, input_channels: int, policy: str = "float32") -> keras.Model:
    """The network under that precision, with the same weights at every call."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    try:
        return build_network(settings, input_channels)
    finally:
        keras.config.set_dtype_policy("float32")


def random_image(shape: tuple[int, ...], settings: ModelSettings, channels: int) -> np.ndarray:
    """Batch and D, H, W -> an image (B, [D,] H, W, channels) of z-scores and some far outliers."""
    spatial = shape[-settings.dimensions :]
    image = np.random.default_rng(0).normal(size=(shape[0], *spatial, channels))
    image[:, 0] *= 30
    return image.astype(np.float32)


def check_model(
    settings: ModelSettings,
    policy: str,
    folder: Path,
    *,
    input_channels: int = 2,
    shapes: tuple[tuple[int, ...], ...] = DEFAULT_SHAPES,
    step: float = 0.1,
) -> keras.Model:
    """Names, precisions, sizes, probabilities, gradients, training, saving; returns the network.

    `step` is the length of the one training step.

    TensorFlow has no float16 kernels for 3-D pooling on a CPU: a network that needs them is not run
    itself, only its float32 twin is.
    """
    network = build(settings, input_channels, policy)
    check_layers(network, settings, policy)
    twin = float32_twin(network)
    assert {layer.compute_dtype for layer in twin.layers} == {"float32"}
    twin.save(folder / "network.keras")
    loaded = keras.saving.load_model(folder / "network.keras")
    for shape in shapes:
        image = random_image(shape, settings, input_channels)
        expected = np.asarray(twin(image))
        check_probabilities(expected, image, settings.target)
        np.testing.assert_array_equal(np.asarray(loaded(image)), expected)
        if runs_here(network) and network is not twin:
            output = np.asarray(network(image))
            check_probabilities(output, image, settings.target)
            assert np.abs(output - expected).mean() <= _TOLERANCE[policy]
    trained = network if runs_here(network) else twin
    image = random_image(shapes[0], settings, input_channels)
    check_training(trained, image, settings.target, step)
    return network


def runs_here(network: keras.Model) -> bool:
    """Whether a CPU has all kernels of the network."""
    return not any(
        isinstance(layer, keras.layers.MaxPooling3D | keras.layers.AveragePooling3D)
        and layer.compute_dtype == "float16"
        for layer in network.layers
    )


def check_layers(network: keras.Model, settings: ModelSettings, policy: str) -> None:
    """The names and precisions that training, supervision and export rely on."""
    half = keras.DTypePolicy(policy).compute_dtype
    assert [x.name for x in network.inputs] == ["image"] and len(network.outputs) == 1
    levels = 5 if settings.network == "pretrained_unet" else len(settings.features)
    for name in ("bottleneck", *(f"decoder_{level}" for level in range(1, levels + 1))):
        layer = network.get_layer(name)
        assert isinstance(layer, keras.layers.Identity) and layer.output.dtype == half
    names = [layer.name for layer in network.layers]
    assert names[-3:] == ["head", "logits", "probabilities"]
    assert network.get_layer("head").compute_dtype == half
    for name in ("logits", "probabilities"):
        assert network.get_layer(name).output.dtype == "float32"
    assert all(weight.dtype == "float32" for weight in network.weights)


def check_probabilities(output: np.ndarray, image: np.ndarray, target: str) -> None:
    """Finite float32 probabilities of the image's size, summing to 1 where a softmax makes them."""
    channels = len(anatomy.TARGETS[target])
    assert output.shape == (*image.shape[:-1], channels) and output.dtype == np.float32
    assert np.isfinite(output).all() and (output >= 0).all() and (output <= 1).all()
    assert output.std() > 0
    if anatomy.ACTIVATIONS[target] == "softmax":
        np.testing.assert_allclose(output.sum(axis=-1), 1, atol=1e-6)


def check_training(network: keras.Model, image: np.ndarray, target: str, step: float) -> None:
    """Every weight has a finite gradient, and a step of that length down it lowers the loss."""
    labels = (image[..., 0] > 0).astype(int)
    channels = len(anatomy.TARGETS[target])
    if anatomy.ACTIVATIONS[target] == "softmax":
        loss, truth = keras.losses.CategoricalCrossentropy(), np.eye(channels)[labels]
    else:
        loss, truth = keras.losses.BinaryCrossentropy(), np.stack([labels] * channels, axis=-1)
    # Two draws of dropout would not be comparable.
    training = not any(isinstance(layer, keras.layers.Dropout) for layer in network.layers)
    with tf.GradientTape() as tape:
        before = loss(truth, network(image, training=training))
    gradients = tape.gradient(before, network.trainable_variables)
    assert all(g is not None and np.isfinite(g).all() for g in gradients)
    length = float(keras.ops.sqrt(sum(keras.ops.sum(g**2) for g in gradients)))
    for weight, gradient in zip(network.trainable_variables, gradients, strict=True):
        weight.assign_sub(gradient * (step / length))
    after = loss(truth, network(image, training=training))
    assert np.isfinite([before, after]).all() and after < before
