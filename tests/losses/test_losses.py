import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasseg.losses.dice import soft_dice
from kerasseg.losses.dice_focal import DiceFocal
from kerasseg.losses.focal import binary_focal


def sample(seed=0, shape=(2, 3, 4, 5, 3)):
    rng = np.random.default_rng(seed)
    truth = (rng.random(shape) < 0.3).astype(np.float32)
    return truth, rng.uniform(0.02, 0.98, shape).astype(np.float32)


def brute_force(truth, probability, weights, smooth, gamma):
    """Loops over voxels with Python floats."""
    classes = truth.shape[-1]
    t, p = truth.reshape(-1, classes).tolist(), probability.reshape(-1, classes).tolist()
    dice, focal = [], 0.0
    for c in range(classes):
        overlap = sum(a[c] * b[c] for a, b in zip(t, p, strict=True))
        total = sum(a[c] for a in t) + sum(b[c] for b in p)
        dice.append(1 - (2 * overlap + smooth) / (total + smooth))
        for a, b in zip(t, p, strict=True):
            p_t = b[c] if a[c] == 1 else 1 - b[c]
            focal += -((1 - p_t) ** gamma) * np.log(p_t)
    mean_dice = sum(w * d for w, d in zip(weights, dice, strict=True)) / sum(weights)
    return dice, mean_dice, focal / truth.size


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_against_a_brute_force_loop(gamma):
    truth, probability = sample()
    dice, mean, focal = brute_force(truth, probability, (1.5, 1, 2), 1.0, gamma)
    np.testing.assert_allclose(soft_dice(truth, probability), dice, rtol=1e-5)
    np.testing.assert_allclose(binary_focal(truth, probability, gamma), focal, rtol=1e-4)
    loss = DiceFocal(0.5, (1.5, 1, 2), 1.0, 0.5, gamma)(truth, probability)
    np.testing.assert_allclose(loss, 0.5 * mean + 0.5 * focal, rtol=1e-4)


@pytest.mark.parametrize("shape", [(3, 4, 5, 1), (3, 4, 5, 3)])
def test_slices_and_a_single_channel_against_a_brute_force_loop(shape):
    truth, probability = sample(shape=shape)
    weights = (1.5, 1.0, 2.0)[: shape[-1]]
    _, mean, focal = brute_force(truth, probability, weights, 1.0, 2.0)
    loss = DiceFocal(0.3, weights, 1.0, 0.7, 2.0)(truth, probability)
    np.testing.assert_allclose(loss, 0.3 * mean + 0.7 * focal, rtol=1e-4)


def test_perfect_is_near_zero_and_wrong_is_large():
    truth, _ = sample()
    assert float(DiceFocal()(truth, truth)) < 1e-3
    assert float(DiceFocal()(truth, 1 - truth)) > 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("truth_value", [0.0, 1.0])
@pytest.mark.parametrize("prediction", ["empty", "full", "perfect", "half"])
def test_gradients_are_finite_for_empty_full_and_perfect_masks(dtype, truth_value, prediction):
    truth = tf.fill([1, 4, 4, 4, 3], truth_value)
    value = {"empty": 0.0, "full": 1.0, "perfect": truth_value, "half": 0.5}[prediction]
    probability = tf.Variable(tf.cast(tf.fill([1, 4, 4, 4, 3], value), dtype))
    with tf.GradientTape() as tape:
        loss = DiceFocal()(truth, tf.convert_to_tensor(probability))
    gradient = tf.cast(tape.gradient(loss, probability), tf.float32)
    assert np.isfinite(float(loss)) and np.isfinite(gradient.numpy()).all()


def test_an_empty_class_with_an_empty_prediction_costs_nothing_and_false_positives_do():
    truth = np.zeros((1, 4, 4, 4, 1), np.float32)
    assert float(soft_dice(truth, truth)[0]) == 0
    false = truth + 0.5
    assert float(soft_dice(truth, false)[0]) == pytest.approx(32 / 33)


def test_a_million_voxels_in_float16_do_not_overflow():
    truth = np.ones((1, 100, 100, 100, 1), np.float16)
    assert float(soft_dice(truth, truth)[0]) == pytest.approx(0, abs=1e-4)


def test_config_round_trip():
    loss = DiceFocal(0.3, (1, 2, 3), 0.5, 0.7, 1.5, name="x")
    again = DiceFocal.from_config(loss.get_config())
    assert again.get_config() == loss.get_config()
    truth, probability = sample()
    assert float(again(truth, probability)) == float(loss(truth, probability))
    assert isinstance(again, keras.losses.Loss)
