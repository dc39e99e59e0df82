"""The update on one device: loss scale, XLA, single batches, what is told of a failure."""

import keras
import numpy as np
import pytest

from kerasseg.config.training import OptimizerSettings
from kerasseg.errors import UserError
from kerasseg.training.callbacks import SkippedUpdates, StopOnNonFinite
from kerasseg.training.optimizers import build_optimizer
from kerasseg.training.step import FINITE, GRADIENT_NOT_FINITE, LossScale
from tests.training.given_gradients import batches_of, given_gradients

SHAPES = {"encoder/kernel": (2, 3, 4), "head/bias": (5,)}
ZEROS = {name: np.zeros(shape) for name, shape in SHAPES.items()}


@pytest.fixture
def float16():
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy("float32")


def make(name="sgd", **options):
    keras.utils.set_random_seed(0)
    settings = OptimizerSettings(name=name, warmup_epochs=0, learning_rate=0.1)
    model, _ = given_gradients(
        SHAPES, lambda variables: build_optimizer(settings, 1, 100), batch_norm=True, **options
    )
    return model


def gradients(count, seed=0):
    rng = np.random.default_rng(seed)
    return [{n: rng.uniform(-1, 1, s) for n, s in SHAPES.items()} for _ in range(count)]


def constant(value):
    return {name: np.full(shape, value) for name, shape in SHAPES.items()}


def scale_of(model):
    return [float(v.numpy()) for v in model.loss_scale.variables]


def test_the_loss_scale_doubles_after_two_thousand_updates_in_a_row(float16):
    model = make()
    assert scale_of(model) == [2.0**15, 0, 0]
    model.loss_scale.scale.assign(2.0**10)
    model.loss_scale.since_overflow.assign(1997)
    overflow = constant(1000.0)
    iterator = batches_of([*gradients(4), overflow, *gradients(2)])
    told = []
    for _ in range(7):
        model.train_function(iterator)
        told.append(scale_of(model))
    assert told == [
        [2.0**10, 1998, 0],
        [2.0**10, 1999, 0],
        [2.0**11, 0, 0],
        [2.0**11, 1, 0],
        [2.0**10, 0, 1],
        [2.0**10, 1, 1],
        [2.0**10, 2, 1],
    ]
    assert int(model.optimizer.iterations) == 6


def test_the_loss_scale_has_an_upper_end():
    """Of gradients that are all zero it would grow for ever."""
    loss_scale = LossScale(dynamic=True)
    for before, after in ((2.0**23, 2.0**24), (2.0**24, 2.0**24)):
        loss_scale.scale.assign(before)
        loss_scale.since_overflow.assign(1999)
        loss_scale.grow()
        assert [float(v.numpy()) for v in loss_scale.variables] == [after, 0, 0]


def test_a_gradient_that_overflows_at_scale_one_is_told_as_not_finite(float16):
    """Before that the scale is halved, and nothing is told."""
    model = make(values=ZEROS, factor=4096.0)
    before = model.get_weights()
    iterator = batches_of([constant(100.0)] * 17)
    failures = []
    for _ in range(17):
        model.train_function(iterator)
        failures.append(int(model.failure))
    assert scale_of(model) == [1.0, 0, 17]
    assert failures == [FINITE] * 15 + [GRADIENT_NOT_FINITE] * 2
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_without_float16_nothing_is_scaled():
    model = make()
    model.loss_scale.since_overflow.assign(1999)
    model.train_function(batches_of(gradients(1)))
    assert scale_of(model) == [1.0, 1999, 0] and not model.loss_scale.dynamic


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_skipped_updates_are_in_the_logs_where_there_can_be_some(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model, callback, logs = make(), SkippedUpdates(), {}
        callback.set_model(model)
        model.train_function(batches_of([constant(1000.0)]))
        callback.on_epoch_end(0, logs)
    finally:
        keras.config.set_dtype_policy("float32")
    skipped = {"loss_scale": 2.0**14, "skipped_updates": 1}
    assert logs == (skipped if policy == "mixed_float16" else {})


@pytest.mark.parametrize(
    ("value", "what"), [(np.nan, "loss"), (np.inf, "loss"), (3e38, "gradient")]
)
def test_what_is_not_finite_ends_the_training_with_step_and_cases(value, what):
    """The norm of the gradient is infinite where the loss, at weights of 0, is not."""
    model = make("adamw", values=ZEROS, accumulation=2)
    callback = StopOnNonFinite(lambda epoch, update: [f"case_{epoch}_{update}", "b", "b"])
    callback.set_model(model)
    callback.on_epoch_begin(3)
    iterator = batches_of([*gradients(2), *gradients(1), constant(value)])
    model.train_function(iterator)
    callback.on_train_batch_end(0)
    before = model.get_weights()
    model.train_function(iterator)
    with pytest.raises(UserError, match=rf"The {what} is not finite in epoch 4, step 2,") as error:
        callback.on_train_batch_end(1)
    assert "case(s) case_3_1, b:" in str(error.value)
    assert int(model.optimizer.iterations) == 1
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_compiled_by_xla_it_does_the_same():
    weights = []
    for jit_compile in (False, True):
        model = make("adamw", accumulation=2, clip_norm=0.5)
        model.jit_compile = jit_compile
        model.make_train_function(force=True)
        assert model.compiled_by_xla == jit_compile
        start = model.get_weights()
        iterator = batches_of(gradients(4))
        for _ in range(2):
            model.train_function(iterator)
        weights.append(model.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert any(np.abs(a - b).max() > 0.1 for a, b in zip(start, weights[1], strict=True))


def test_a_single_batch_of_keras_counts_as_all_that_are_accumulated():
    """`train_on_batch`, as of Keras."""
    (batch,) = gradients(1)
    image = np.concatenate([np.ravel(v) for v in batch.values()])[None, None, None]
    masks = np.zeros((1, 1, 1, 1), np.uint8)
    ours, theirs = make("adamw", accumulation=3), make("adamw")
    ours.train_on_batch(image.astype(np.float32), masks)
    theirs.train_function(batches_of([batch]))
    assert int(ours.optimizer.iterations) == 1
    for variable, other in zip(ours.trainable_variables, theirs.trainable_variables, strict=True):
        np.testing.assert_allclose(variable, other, atol=1e-6)
