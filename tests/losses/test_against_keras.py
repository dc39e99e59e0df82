"""Where Keras has the same loss, ours is the same under the settings named in docs/losses.md."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.losses.check_loss import as_probabilities, loss_of, masks

SMOOTH = keras.config.epsilon()
SHAPE = (2, 3, 5, 4)


def sample(activation, channels):
    truth = masks((*SHAPE, channels), activation)
    logits = np.random.default_rng(1).normal(0, 2, truth.shape).astype(np.float32)
    return truth, logits, as_probabilities(logits, activation).astype(np.float32)


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_binary_cross_entropy(channels, from_logits):
    truth, logits, probability = sample("sigmoid", channels)
    prediction = logits if from_logits else probability
    ours = loss_of("cross_entropy", from_logits=from_logits)(truth, prediction)
    theirs = keras.losses.BinaryCrossentropy(from_logits=from_logits)(truth, prediction)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("from_logits", [True, False])
def test_categorical_cross_entropy(from_logits):
    truth, logits, probability = sample("softmax", 4)
    prediction = logits if from_logits else probability
    ours = loss_of("cross_entropy", from_logits=from_logits, activation="softmax")(
        truth, prediction
    )
    theirs = keras.losses.CategoricalCrossentropy(from_logits=from_logits)(truth, prediction)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("alpha", [None, 0.25, 0.8])
def test_binary_focal(alpha, gamma, from_logits):
    truth, logits, probability = sample("sigmoid", 3)
    prediction = logits if from_logits else probability
    ours = loss_of("focal", gamma=gamma, alpha=alpha, from_logits=from_logits)(truth, prediction)
    theirs = keras.losses.BinaryFocalCrossentropy(
        apply_class_balancing=alpha is not None,
        alpha=alpha or 0.25,
        gamma=gamma,
        from_logits=from_logits,
    )(truth, prediction)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def slope(loss, truth, logits):
    """The loss and its gradient."""
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(np.array(truth), logits)
    return float(value), tape.gradient(value, logits).numpy().ravel().tolist()


def test_focal_gradients_that_keras_has_not():
    right = ([[[1]]], [[[60.0]]])
    assert slope(loss_of("focal", gamma=0.5, from_logits=True), *right) == (0, [0])
    theirs = keras.losses.BinaryFocalCrossentropy(gamma=0.5, from_logits=True)
    assert np.isnan(slope(theirs, *right)[1]), "gamma below 1 and a voxel that is surely right"
    wrong = ([[[1, 0]]], [[[-60.0, 0.0]]])
    ours = loss_of("focal", from_logits=True, activation="softmax")
    assert slope(ours, *wrong) == (60, [-1, 1])
    theirs = keras.losses.CategoricalFocalCrossentropy(alpha=1, from_logits=True)
    assert slope(theirs, *wrong) == (pytest.approx(-np.log(1e-7)), [0, 0]), "surely wrong: given up"


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("alpha", [0.25, (0.1, 0.4, 0.3, 0.2)])
def test_categorical_focal(alpha, from_logits):
    truth, logits, probability = sample("softmax", 4)
    prediction = logits if from_logits else probability
    ours = loss_of("focal", alpha=alpha, from_logits=from_logits, activation="softmax")(
        truth, prediction
    )
    theirs = keras.losses.CategoricalFocalCrossentropy(alpha=alpha, from_logits=from_logits)(
        truth, prediction
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_dice_per_class():
    truth, _, probability = sample("sigmoid", 3)
    ours = loss_of("dice", smooth=SMOOTH)(truth, probability)
    theirs = keras.losses.Dice(axis=(0, 1, 2, 3))(truth.astype(np.float32), probability)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    of_samples = loss_of("dice", smooth=SMOOTH, reduction="sample")(truth, probability)
    theirs = keras.losses.Dice(axis=(1, 2, 3))(truth.astype(np.float32), probability)
    np.testing.assert_allclose(of_samples, theirs, rtol=1e-5)


def test_keras_dice_as_it_comes_sums_over_the_classes_together():
    truth, _, probability = sample("sigmoid", 3)
    truth[:, 1:, ..., 2] = 0  # a rarer class, which a sum over all drowns
    theirs = keras.losses.Dice()(truth.astype(np.float32), probability)
    in_one = loss_of("dice", smooth=SMOOTH)(truth.reshape(2, -1, 1), probability.reshape(2, -1, 1))
    np.testing.assert_allclose(in_one, theirs, rtol=1e-5)
    assert abs(float(loss_of("dice", smooth=SMOOTH)(truth, probability)) - float(theirs)) > 1e-3


def test_an_empty_class_left_empty_costs_keras_dice_1_and_ours_0():
    empty = np.zeros((2, 5, 4, 1), np.float32)
    assert float(keras.losses.Dice()(empty, empty)) == 1
    assert float(loss_of("dice")(empty, empty)) == 0


@pytest.mark.parametrize("reduction, axis", [("batch", (0, 1, 2, 3)), ("sample", (1, 2, 3))])
def test_tversky_whose_alpha_is_of_false_negatives_in_keras(reduction, axis):
    truth, _, probability = sample("sigmoid", 3)
    ours = loss_of("tversky", smooth=SMOOTH, reduction=reduction, alpha=0.2, beta=0.9)(
        truth, probability
    )
    theirs = keras.losses.Tversky(alpha=0.9, beta=0.2, axis=axis)(
        truth.astype(np.float32), probability
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    # What the arguments mean, seen alone: a false positive, and nothing else wrong.
    truth = np.array([1.0, 0.0], np.float32).reshape(1, 2, 1)
    every = np.ones_like(truth)
    assert float(
        loss_of("tversky", alpha=0.2, beta=0.9, smooth=SMOOTH)(truth, every)
    ) == pytest.approx(1 / 6)
    found = float(keras.losses.Tversky(alpha=0.2, beta=0.9)(truth, every))
    assert found == pytest.approx(0.9 / 1.9), "alpha is documented as of false positives"
