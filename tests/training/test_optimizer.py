"""Every optimiser against numpy, with decay, slower encoder, clipping, accumulation, averages."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasseg.config.training import OptimizerSettings
from kerasseg.errors import UserError
from kerasseg.training.optimizers import build_optimizer
from kerasseg.training.step import FINITE, TrainingModel
from tests.training.given_gradients import batches_of, given_gradients
from tests.training.reference_optimizers import REFERENCES, ByKeras

SHAPES = {
    "encoder/kernel": (3, 2, 1, 2, 4),
    "encoder/gamma": (4,),
    "decoder/kernel": (2, 2, 3, 5),
    "decoder/depthwise": (3, 3, 5, 1),
    "decoder/bias": (5,),
    "decoder/dense/kernel": (6, 4),
    "head/kernel": (1, 1, 5, 3),
    "head/bias": (3,),
}
RATE, DECAY = 0.05, 0.3


def settings_of(name, **options):
    base = {"learning_rate": RATE, "schedule": "constant", "warmup_epochs": 0, "name": name}
    return OptimizerSettings(**{**base, **options})


def make_variables(seed=0):
    rng = np.random.default_rng(seed)
    return {
        n: keras.Variable(rng.normal(size=s), dtype="float32", name=n.split("/")[-1])
        for n, s in SHAPES.items()
    }


def make_gradients(count, seed=1):
    rng = np.random.default_rng(seed)
    return [{n: rng.normal(size=s) for n, s in SHAPES.items()} for _ in range(count)]


def make_optimizer(settings, variables):
    def part(word):
        return [variable for name, variable in variables.items() if word in name]

    optimizer = build_optimizer(settings, 1, 100, encoder=part("encoder"))
    optimizer.build(list(variables.values()))
    return optimizer


def make_model(settings, accumulation):
    """A model whose gradients are given to it, with weights as of `make_variables`."""
    values = {n: np.array(v) for n, v in make_variables().items()}
    return given_gradients(
        SHAPES,
        lambda variables: make_optimizer(settings, variables),
        values,
        accumulation=accumulation,
        clip_norm=settings.clip_norm,
    )


def apply(optimizer, variables, gradients):
    tensors = [keras.ops.cast(gradients[n], "float32") for n in variables]
    optimizer.apply(tensors, list(variables.values()))


def reference(settings, weights, updates):
    """Weights after updates with these gradients; and their moving averages."""
    kind = REFERENCES.get(settings.name, ByKeras)
    rules = {n: kind(settings) for n in SHAPES}
    averages = dict(weights)
    for t, gradients in enumerate(updates):
        norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
        shrunk = min(1, settings.clip_norm / norm) if settings.clip_norm else 1
        momentum = min(settings.ema or 0, (1 + t) / (10 + t))
        for name, gradient in gradients.items():
            rate = RATE * (settings.encoder_factor if "encoder" in name else 1)
            w = weights[name]
            if "kernel" in name or "depthwise" in name:
                w = w - rate * settings.weight_decay * w
            weights[name] = rules[name].step(w, gradient * shrunk, rate)
            averages[name] = momentum * averages[name] + (1 - momentum) * weights[name]
    return weights, averages


def skip_a_broken_muon(name):
    if name.endswith("Muon") and keras.__version__.startswith("3.12."):
        pytest.skip("Keras 3.12's Muon asks TensorFlow's variables for a path, which they lack")


RULES = [
    ("adam", {}),
    ("adamw", {"beta_1": 0.8, "beta_2": 0.95}),
    ("sgd", {}),
    ("sgd", {"nesterov": False, "momentum": 0.9}),
    ("lion", {"beta_1": 0.95}),
    ("keras.optimizers.Muon", {"options": {"momentum": 0.8}}),
    ("keras.optimizers.RMSprop", {"options": {"rho": 0.8}}),
]


@pytest.mark.parametrize(
    ("name", "options", "accumulation"),
    [
        # Batches are accumulated before an optimiser sees them: each is tested with or without.
        pytest.param(*rule, count, marks=() if count == (1, 3)[i % 2] else pytest.mark.all_only)
        for i, rule in enumerate(RULES)
        for count in (1, 3)
    ],
)
def test_updates_are_those_of_the_paper(name, options, accumulation):
    """Six updates of every kind of variable, all rules at once."""
    skip_a_broken_muon(name)
    settings = settings_of(
        name, weight_decay=DECAY, encoder_factor=0.2, clip_norm=3.0, ema=0.3, **options
    )
    model, variables = make_model(settings, accumulation)
    start = {n: np.array(v, np.float64) for n, v in variables.items()}
    batches = make_gradients(6 * accumulation)
    iterator = batches_of(batches)
    for _ in range(6):
        model.train_function(iterator)
    assert next(iterator, None) is None, "it has taken all batches"
    groups = [batches[i : i + accumulation] for i in range(0, len(batches), accumulation)]
    updates = [{n: np.mean([b[n] for b in group], axis=0) for n in SHAPES} for group in groups]
    weights, averages = reference(settings, start, updates)
    for n, variable in variables.items():
        np.testing.assert_allclose(variable, weights[n], rtol=1e-4, atol=2e-5, err_msg=n)
    for n, average in zip(SHAPES, model.optimizer.averages, strict=True):
        np.testing.assert_allclose(average, averages[n], rtol=1e-4, atol=2e-5, err_msg=n)
    assert int(model.optimizer.iterations) == 6


def test_the_average_comes_to_its_momentum_and_starts_at_the_weights():
    """After many updates it is the plain average of momentum 0.5; before one it is the weights."""
    settings = settings_of("sgd", momentum=0.0, weight_decay=0.0, ema=0.5)
    variables = make_variables()
    optimizer = make_optimizer(settings, variables)
    for variable, average in zip(variables.values(), optimizer.averages, strict=True):
        np.testing.assert_array_equal(variable, average)
    for batch in make_gradients(12):
        before = [np.array(a) for a in optimizer.averages]
        apply(optimizer, variables, batch)
    for old, new, variable in zip(before, optimizer.averages, variables.values(), strict=True):
        np.testing.assert_allclose(new, 0.5 * old + 0.5 * np.array(variable), rtol=1e-5, atol=1e-6)
    assert make_optimizer(settings_of("sgd"), make_variables()).averages == []


@pytest.mark.parametrize("name", ["adamw", "sgd", "lion"])
def test_without_rules_of_ours_it_is_the_optimiser_of_keras(name):
    own = {
        "adamw": keras.optimizers.AdamW(RATE, weight_decay=DECAY),
        "sgd": keras.optimizers.SGD(RATE, momentum=0.99, nesterov=True, weight_decay=DECAY),
        "lion": keras.optimizers.Lion(RATE, weight_decay=DECAY),
    }[name]
    own.exclude_from_weight_decay(var_names=["bias", "gamma"])
    ours, theirs = make_variables(), make_variables()
    optimizer = make_optimizer(settings_of(name, weight_decay=DECAY), ours)
    own.build(list(theirs.values()))
    for batch in make_gradients(5):
        apply(optimizer, ours, batch)
        apply(own, theirs, batch)
    for n in SHAPES:
        np.testing.assert_allclose(ours[n], theirs[n], rtol=1e-4, atol=1e-5, err_msg=n)


def test_a_variable_released_later_begins_with_a_step_of_the_rate():
    """Of a frozen encoder there are no gradients at first; no decay and no moments either."""
    variables = make_variables()
    optimizer = make_optimizer(settings_of("adamw", weight_decay=0.0, ema=0.5), variables)
    frozen = {n: v for n, v in variables.items() if "encoder" in n}
    trained = {n: v for n, v in variables.items() if n not in frozen}
    before = {n: np.array(v) for n, v in variables.items()}
    for batch in make_gradients(20):
        apply(optimizer, trained, batch)
    averages = dict(zip(SHAPES, optimizer.averages, strict=True))
    for n, variable in frozen.items():
        np.testing.assert_array_equal(variable, before[n])
        np.testing.assert_array_equal(averages[n], before[n])
    apply(optimizer, variables, make_gradients(1)[0])
    moved = np.abs(np.array(variables["encoder/gamma"]) - before["encoder/gamma"])
    np.testing.assert_allclose(moved, RATE, rtol=1e-3)


def test_under_a_scaled_loss_an_update_that_overflows_changes_nothing():
    """mixed_float16: clipping, averages and the count of updates act on unscaled gradients."""
    settings = settings_of("adamw", clip_norm=1.0, ema=0.5, encoder_factor=0.5)
    exact = [{n: np.round(g * 8) / 32 for n, g in batch.items()} for batch in make_gradients(4)]
    broken = {n: np.full(s, 1000.0) for n, s in SHAPES.items()}
    plain, expected = make_model(settings, 2)
    iterator = batches_of(exact)
    for _ in range(2):
        plain.train_function(iterator)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        scaled, found = make_model(settings, 2)
        first = float(scaled.loss_scale.scale)
        iterator = batches_of([broken, exact[0], *exact[:2], exact[2], broken, *exact[2:]])
        for _ in range(4):
            scaled.train_function(iterator)
            assert int(scaled.failure) == FINITE
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(scaled.results()["loss"])
    assert float(scaled.loss_scale.scale) == first / 4 and int(scaled.loss_scale.skipped) == 2
    for n in SHAPES:
        np.testing.assert_allclose(found[n], expected[n], rtol=1e-5, atol=1e-6)
    for a, b in zip(scaled.optimizer.variables, plain.optimizer.variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=a.path)


class SquaredError(keras.losses.Loss):
    """Against the images' first channels, which stand in the masks."""

    def call(self, y_true, y_pred):
        return keras.ops.reshape(keras.ops.mean(keras.ops.square(y_true - y_pred)), (1,))


def quadratic(accumulation: int, batches: list[np.ndarray]) -> np.ndarray:
    """Weights of a linear layer after updates on the batches."""
    keras.utils.set_random_seed(0)
    image = keras.Input((1, 1, 3))
    head = keras.layers.Conv2D(1, 1, name="head")
    logits = keras.layers.Activation("linear", name="logits")(head(image))
    model = TrainingModel(
        keras.Model(image, logits), "binary", SquaredError(), accumulation=accumulation
    )
    settings = OptimizerSettings(learning_rate=0.05, warmup_epochs=0, final_fraction=1.0)
    model.compile(build_optimizer(settings, 1, 100), jit_compile=False, auto_scale_loss=False)
    model.optimizer.build(model.trainable_variables)
    model.make_train_function()
    images = np.stack(batches)[:, :, None, None]
    iterator = iter(tf.data.Dataset.from_tensor_slices((images, images[..., :1] * 2)))
    for _ in range(len(batches) // accumulation):
        model.train_function(iterator)
    return head.kernel.numpy()


def test_accumulating_two_batches_equals_one_of_both():
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(4, 3)).astype(np.float32) for _ in range(6)]
    joined = [np.concatenate(batches[i : i + 2]) for i in (0, 2, 4)]
    np.testing.assert_allclose(quadratic(2, batches), quadratic(1, joined), atol=1e-6)
    assert np.abs(quadratic(1, joined) - quadratic(1, joined[:1])).max() > 0.05


@pytest.mark.parametrize("name", ["adamw", "sgd", "lion", "keras.optimizers.Muon"])
def test_norms_and_biases_do_not_decay(name):
    skip_a_broken_muon(name)
    model = keras.Sequential(
        [
            keras.Input((4, 4, 4, 2)),
            keras.layers.Conv3D(4, 1, bias_initializer="ones"),
            keras.layers.GroupNormalization(-1, beta_initializer="ones"),
            keras.layers.BatchNormalization(beta_initializer="ones"),
            keras.layers.Conv3DTranspose(4, 2, bias_initializer="ones"),
            keras.layers.LayerNormalization(beta_initializer="ones"),
        ]
    )
    settings = OptimizerSettings(name=name, weight_decay=0.5, learning_rate=0.1)
    optimizer = build_optimizer(settings, 10, 10)
    optimizer.build(model.trainable_variables)
    before = [v.numpy().copy() for v in model.trainable_variables]
    optimizer.apply([v * 0 for v in model.trainable_variables], model.trainable_variables)
    for variable, old in zip(model.trainable_variables, before, strict=True):
        changed = not np.array_equal(variable.numpy(), old)
        assert changed == (variable.name == "kernel"), variable.path


SCHEDULES = {
    "constant": {},
    "step": {"step_epochs": (1,)},
    "polynomial": {},
    "cosine": {},
    "cosine_restarts": {"restart_epochs": 1},
    "plateau": {},
}


OPTIMIZERS = ("adamw", "adam", "sgd", "lion", "keras.optimizers.Muon")


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        # Each optimizer with a cosine and each schedule with AdamW; the other pairs repeat it.
        pytest.param(*pair, marks=() if {"adamw", "cosine"} & set(pair) else pytest.mark.all_only)
        for pair in itertools.product(OPTIMIZERS, SCHEDULES)
    ],
)
def test_every_optimiser_follows_every_schedule(name, schedule):
    """In a compiled step: the decay of a kernel without gradient shows the rate of each update."""
    skip_a_broken_muon(name)
    options = {"name": name, "schedule": schedule, "learning_rate": 0.5, "weight_decay": 0.5}
    settings = OptimizerSettings(warmup_epochs=0, **options, **SCHEDULES[schedule])
    kernel = keras.Variable(np.ones((2, 3), np.float32))
    optimizer = build_optimizer(settings, 2, 2)
    optimizer.build([kernel])

    @tf.function
    def step():
        optimizer.apply([tf.zeros((2, 3))], [kernel])

    for _ in range(4):
        before, rate = kernel.numpy(), float(optimizer.learning_rate)
        step()
        np.testing.assert_allclose(kernel, before * (1 - 0.5 * rate), rtol=1e-5)
    falls = schedule not in ("constant", "plateau")
    assert (float(optimizer.learning_rate) < 0.5) == falls


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "step", "step_epochs": (3, 9)}, r"begin with 3, inside the 5 epochs"),
        ({"name": "lion", "beta_1": 0.0}, "lion needs optimizer.beta_1 above 0"),
        ({"name": "adam", "momentum": 0.5}, "momentum is for optimizer.name=sgd, but it is adam"),
        ({"power": 2.0}, "power is for optimizer.schedule=polynomial, but it is cosine"),
        ({"schedule": "plateau", "warmup_epochs": 2}, "plateau starts at the peak"),
        ({"name": "muon"}, "use Keras's, optimizer.name=keras.optimizers.Muon"),
        ({"name": "adamax"}, 'found "adamax", expected one of adamw, adam, sgd, lion, or a Keras'),
        ({"options": {"rho": 0.9}}, "options is for an optimizer that optimizer.name gives by"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        OptimizerSettings(**options)


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("keras.optimizers.Muons", {}, "optimizer.name: keras.optimizers.Muons cannot be imported"),
        ("no_such_module.Muon", {}, "optimizer.name: no_such_module.Muon cannot be imported"),
        ("keras.losses.Dice", {}, "keras.losses.Dice is not a keras.optimizers.Optimizer"),
        (
            "keras.optimizers.Muon",
            {"rho": 1},
            r"Muon does not take the arguments {'rho': 1} \(.*rho",
        ),
        ("keras.optimizers.Muon", {"clipnorm": 1.0}, "clipnorm is set by optimizer.clip_norm"),
        ("keras.optimizers.Muon", {"use_ema": True}, "use_ema is set by optimizer.ema: leave it"),
    ],
)
def test_an_import_path_that_gives_no_optimiser_is_refused(path, options, message):
    with pytest.raises(UserError, match=message):
        build_optimizer(settings_of(path, options=options), 1, 1)
