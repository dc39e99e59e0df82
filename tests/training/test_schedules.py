import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasseg.config.training import OptimizerSettings
from kerasseg.training.optimizers import learning_rate_schedule, warmup_epochs

PEAK, STEPS, EPOCHS, WARMUP = 0.2, 10, 20, 4


def rates(epochs=EPOCHS, **settings):
    """The learning rate of every batch of a run, and of one more."""
    options = {"learning_rate": PEAK, "warmup_epochs": WARMUP, **settings}
    schedule = learning_rate_schedule(OptimizerSettings(**options), epochs, STEPS)
    return of_every_step(schedule, epochs * STEPS)


def of_every_step(schedule, last):
    """Its rates from step 0 to the last, as a graph computes them in training."""
    traced = tf.function(schedule)
    return np.array([float(traced(step)) for step in tf.range(last + 1, dtype=tf.int64)])


def expected(after, warmup=WARMUP * STEPS, epochs=EPOCHS):
    """A linear rise, then `after(batches since)`."""
    steps = range(epochs * STEPS + 1)
    return [PEAK * (s + 1) / (warmup + 1) if s < warmup else after(s - warmup) for s in steps]


LEFT = (EPOCHS - WARMUP) * STEPS


def cosine(share):
    return 0.5 * (1 + math.cos(math.pi * share))


@pytest.mark.parametrize(
    ("settings", "after"),
    [
        ({"schedule": "constant"}, lambda s: PEAK),
        (
            {"schedule": "step", "step_epochs": (8, 15), "step_factor": 0.3},
            lambda s: PEAK * 0.3 ** ((s >= 4 * STEPS) + (s >= 11 * STEPS)),
        ),
        (
            {"schedule": "polynomial", "final_fraction": 0.05},
            lambda s: PEAK * (0.95 * (1 - s / LEFT) ** 0.9 + 0.05),
        ),
        (
            {"schedule": "polynomial", "final_fraction": 0.0, "power": 2.0},
            lambda s: PEAK * (1 - s / LEFT) ** 2,
        ),
        ({"schedule": "cosine"}, lambda s: PEAK * (0.99 * cosine(s / LEFT) + 0.01)),
    ],
)
def test_every_schedule_rises_and_falls_by_its_formula(settings, after):
    np.testing.assert_allclose(rates(**settings), expected(after), rtol=2e-5, atol=1e-8)


@pytest.mark.parametrize(("growth", "decay"), [(1.0, 0.5), (2.0, 1.0)])
def test_warm_restarts(growth, decay):
    """The first cosine has 3 epochs; each is `growth` times as long and `decay` times as high."""

    def after(step):
        length, start, peak = 3 * STEPS, 0, 1.0
        while step >= start + length:
            start, length, peak = start + length, int(length * growth), peak * decay
        return PEAK * (0.99 * peak * cosine((step - start) / length) + 0.01)

    found = rates(
        schedule="cosine_restarts", restart_epochs=3, restart_growth=growth, restart_decay=decay
    )
    wrong = np.abs(found / expected(after) - 1) > 1e-3
    starts = [WARMUP * STEPS + s for s in (30, 60, 90, 120, 150)]
    # float32 may begin a cosine one batch late.
    assert set(np.flatnonzero(wrong)) <= set(starts)
    assert wrong.sum() <= 2


def test_warm_up_then_cosine_to_one_percent():
    settings = OptimizerSettings(learning_rate=2e-4, warmup_epochs=5, final_fraction=0.01)
    steps, epochs = 10, 50
    schedule = learning_rate_schedule(settings, epochs, steps)
    rates = of_every_step(schedule, epochs * steps)
    warmup = 5 * steps
    assert rates[0] == pytest.approx(2e-4 / (warmup + 1)) and max(rates) == pytest.approx(2e-4)
    assert int(np.argmax(rates)) == warmup
    assert np.allclose(np.diff(rates[:warmup]), rates[1] - rates[0], rtol=1e-3), "linear"
    for step in (warmup, 200, 400, 500):
        progress = (step - warmup) / (epochs * steps - warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        assert rates[step] == pytest.approx(2e-4 * (0.99 * cosine + 0.01), rel=1e-4)
    assert rates[-1] == pytest.approx(2e-6, rel=1e-4)


def test_it_is_keras_own_warm_up_and_cosine():
    keras_own = keras.optimizers.schedules.CosineDecay(
        PEAK / (WARMUP * STEPS + 1),
        LEFT,
        alpha=0.01,
        warmup_target=PEAK,
        warmup_steps=WARMUP * STEPS,
    )
    expected = of_every_step(keras_own, EPOCHS * STEPS)
    np.testing.assert_allclose(rates(), expected, rtol=1e-5)


@pytest.mark.parametrize(("epochs", "warmup"), [(50, 5), (10, 5), (6, 3), (1, 0)])
def test_a_short_run_warms_up_for_half_of_it_at_most(epochs, warmup):
    assert warmup_epochs(OptimizerSettings(warmup_epochs=5), epochs) == warmup
    assert np.argmax(rates(epochs=epochs, warmup_epochs=5)) == warmup * STEPS
    assert rates(epochs=epochs)[0] > 0


def test_a_plateau_begins_at_the_peak_and_can_be_lowered():
    settings = OptimizerSettings(schedule="plateau", learning_rate=0.3)
    assert settings.warmup_epochs == 0
    assert learning_rate_schedule(settings, 10, 10) == 0.3
