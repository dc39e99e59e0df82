import math

import keras
import numpy as np
import pytest

from kerasseg.config import OptimizerSettings
from kerasseg.training.optimizer import build_optimizer, learning_rate_schedule, warmup_epochs


def test_warm_up_then_cosine_to_one_percent():
    settings = OptimizerSettings(learning_rate=2e-4, warmup_epochs=5, final_fraction=0.01)
    steps, epochs = 10, 50
    schedule = learning_rate_schedule(settings, epochs, steps)
    rates = [float(schedule(step)) for step in range(epochs * steps + 1)]
    warmup = 5 * steps
    assert rates[0] == pytest.approx(2e-4 / (warmup + 1)) and max(rates) == pytest.approx(2e-4)
    assert int(np.argmax(rates)) == warmup
    assert np.allclose(np.diff(rates[:warmup]), rates[1] - rates[0], rtol=1e-3), "linear"
    for step in (warmup, 200, 400, 500):
        progress = (step - warmup) / (epochs * steps - warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        assert rates[step] == pytest.approx(2e-4 * (0.99 * cosine + 0.01), rel=1e-4)
    assert rates[-1] == pytest.approx(2e-6, rel=1e-4)


@pytest.mark.parametrize(("epochs", "expected"), [(50, 5), (10, 5), (6, 3), (1, 0)])
def test_a_short_run_warms_up_for_half_of_it_at_most(epochs, expected):
    settings = OptimizerSettings(warmup_epochs=5)
    assert warmup_epochs(settings, epochs) == expected
    assert float(learning_rate_schedule(settings, epochs, 4)(0)) > 0


def quadratic(accumulation: int, batches: list[np.ndarray]) -> np.ndarray:
    """Weights of a linear layer after steps on the batches."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    settings = OptimizerSettings(learning_rate=0.05, warmup_epochs=0, final_fraction=1.0)
    model.compile(build_optimizer(settings, 1, 100, accumulation), "mse", jit_compile=False)
    for batch in batches:
        model.train_on_batch(batch, batch[:, :2] * 2)
    return model.layers[0].kernel.numpy()


def test_accumulating_two_batches_equals_one_of_both():
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(4, 3)).astype(np.float32) for _ in range(6)]
    joined = [np.concatenate(batches[i : i + 2]) for i in (0, 2, 4)]
    np.testing.assert_allclose(quadratic(2, batches), quadratic(1, joined), atol=1e-6)


def test_norms_and_biases_do_not_decay():
    model = keras.Sequential(
        [
            keras.Input((4, 4, 4, 2)),
            keras.layers.Conv3D(4, 1, bias_initializer="ones"),
            keras.layers.GroupNormalization(-1, beta_initializer="ones"),
        ]
    )
    optimizer = build_optimizer(OptimizerSettings(weight_decay=0.5, learning_rate=0.1), 10, 10, 1)
    optimizer.build(model.trainable_variables)
    before = [v.numpy().copy() for v in model.trainable_variables]
    optimizer.apply([v * 0 for v in model.trainable_variables], model.trainable_variables)
    for variable, old in zip(model.trainable_variables, before, strict=True):
        changed = not np.array_equal(variable.numpy(), old)
        assert changed == (variable.name == "kernel"), variable.path
