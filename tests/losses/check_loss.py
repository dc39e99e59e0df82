"""A battery for every loss."""

import keras
import numpy as np
import tensorflow as tf

from kerasseg.losses.loss import SegmentationLoss

SHAPE = (2, 3, 5, 4)
"""Batch, depth, height, width; channels are further."""


def loss_of(name, from_logits=False, activation="sigmoid", **options):
    """The loss of one term with the weight 1."""
    return SegmentationLoss({name: 1, **options}, from_logits, activation, name=name)


def masks(shape, activation, seed=0):
    """Random truth, uint8, one-hot with softmax."""
    rng = np.random.default_rng(seed)
    if activation == "sigmoid":
        return (rng.random(shape) < 0.3).astype(np.uint8)
    return np.eye(shape[-1], dtype=np.uint8)[rng.integers(0, shape[-1], shape[:-1])]


def as_probabilities(logits, activation):
    """The probabilities in float64, by the definition."""
    logits = np.asarray(logits, np.float64)
    if activation == "sigmoid":
        return 1 / (1 + np.exp(-logits))
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def extreme_truths(activation, channels):
    """Name -> truth (2, 3, 5, 4, K): empty, full, and mixed."""
    shape = (*SHAPE, channels)
    truths = {"mixed": masks(shape, activation)}
    for name, channel in (("empty", 0), ("full", channels - 1)):
        if activation == "softmax":
            truths[name] = np.broadcast_to(np.eye(channels, dtype=np.uint8)[channel], shape)
        else:
            truths[name] = np.full(shape, name == "full", np.uint8)
    return truths


def check_gradients(loss, activation, channels):
    """Loss and gradient are finite and of the right size for every kind of mask and precision, with
    logits from 0 to the end of float16."""

    @tf.function(autograph=False)  # traced once for each type
    def value_and_gradient(truth, logits):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(truth, logits)
        return value, tape.gradient(value, logits)

    for name, truth in extreme_truths(activation, channels).items():
        wrong = np.roll(truth, 1, axis=-1) if activation == "softmax" else 1 - truth
        for size in (0.0, 1000.0, 60000.0):
            for kind, mask in (("perfect", truth), ("wrong", wrong)):
                for dtype in ("float16", "bfloat16", "float32"):
                    logits = tf.cast(size * (2.0 * mask - 1.0), dtype)
                    value, gradient = value_and_gradient(tf.constant(truth, tf.uint8), logits)
                    where = (name, kind, size, dtype, float(value))
                    assert value.dtype == tf.float32 and value.shape == (), where
                    assert gradient.dtype == dtype and np.isfinite(float(value)), where
                    assert np.isfinite(tf.cast(gradient, tf.float32).numpy()).all(), where
                    if size and kind == "perfect":
                        assert float(value) < 1e-4, where
                    # Boundaries are blind to a prediction that fills the patch.
                    elif size and loss.name != "boundary":
                        assert float(value) > 1e-2, where


def check_half_precision(loss, activation, channels):
    """Predictions of half precision give what the same numbers in float32 give."""
    truth = masks((*SHAPE, channels), activation, seed=3)
    for dtype in ("float16", "bfloat16"):
        logits = tf.cast(np.random.default_rng(4).normal(0, 3, truth.shape), dtype)
        assert float(loss(truth, logits)) == float(loss(truth, tf.cast(logits, tf.float32)))
        assert float(loss(truth.astype(bool), logits)) == float(loss(truth, logits))


def check_config(loss, activation, channels):
    """Rebuilt from its config, also through Keras's serialisation, it is the same loss."""
    truth = masks((*SHAPE, channels), activation, seed=1)
    logits = np.random.default_rng(2).normal(0, 2, truth.shape)
    again = type(loss).from_config(loss.get_config())
    saved = keras.saving.serialize_keras_object(loss)
    for other in (again, keras.saving.deserialize_keras_object(saved)):
        assert other.get_config() == loss.get_config() and type(other) is type(loss)
        assert float(other(truth, logits)) == float(loss(truth, logits))


def check_training(loss, activation, channels, tmp_path):
    """In model.compile, with spatial sizes that the graph does not know: steps lower the loss, and
    the compiled model is saved and read back with it."""
    keras.utils.set_random_seed(3)
    truth = masks((*SHAPE, channels), activation, seed=5)
    image = truth + np.random.default_rng(6).normal(0, 0.3, truth.shape).astype(np.float32)
    inputs = keras.Input((None, None, None, channels))
    network = keras.Model(inputs, keras.layers.Conv3D(channels, 1)(inputs))
    network.compile(optimizer=keras.optimizers.Adam(0.1), loss=loss)
    before = network.evaluate(image, truth, verbose=0)
    # Fifteen steps in one epoch: to begin one takes longer than a step.
    images, truths = (np.concatenate([part] * 15) for part in (image, truth))
    network.fit(images, truths, batch_size=2, verbose=0)
    after = network.evaluate(image, truth, verbose=0)
    assert after < 0.9 * before, (before, after)
    np.testing.assert_allclose(after, loss(truth, network(image)), rtol=1e-6)
    network.save(tmp_path / "network.keras")
    again = keras.saving.load_model(tmp_path / "network.keras")
    assert again.loss.get_config() == loss.get_config()


def check_loss(loss, activation, channels):
    """Run the battery on `loss`, which takes logits."""
    check_gradients(loss, activation, channels)
    check_half_precision(loss, activation, channels)
    check_config(loss, activation, channels)
