"""From the terms of a config to a loss."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from pydantic_core import PydanticUndefined

from kerasseg import anatomy
from kerasseg.config.load import load_experiment
from kerasseg.config.loss import TERMS
from kerasseg.losses import functional
from kerasseg.losses.loss import build_loss
from tests.losses import brute_force
from tests.losses.check_loss import as_probabilities, check_config, masks
from tests.program import run_program

SHAPE = (2, 3, 5, 4)


def build(target, loss):
    return build_loss(
        load_experiment(None, [f"model.target={target}", f"loss={loss}"]).loss, target
    )


def sample(target):
    activation, channels = anatomy.ACTIVATIONS[target], len(anatomy.TARGETS[target])
    truth = masks((*SHAPE, channels), activation)
    logits = np.random.default_rng(1).normal(0, 2, truth.shape).astype(np.float32)
    return truth, logits, as_probabilities(logits, activation), activation


@pytest.mark.parametrize("target", anatomy.TARGETS)
def test_every_term_by_its_defaults(target):
    truth, logits, probability, activation = sample(target)
    for name in TERMS:
        options = {}
        if target == "labels" and "weights" in TERMS[name].model_fields and name != "cross_entropy":
            options = {"weights": (0, 1, 1, 1)}
        expected = getattr(brute_force, name)(truth, probability, activation, **options)
        found = build(target, f"[{{{name}: 2}}]")(truth, logits)
        assert found.shape == () and found.dtype == "float32"
        np.testing.assert_allclose(found, 2 * expected, rtol=2e-5, err_msg=name)


def test_functions_take_the_options_of_the_settings_and_have_no_defaults_of_their_own():
    for name, term in TERMS.items():
        options = {
            parameter.name: parameter.default
            for parameter in inspect.signature(getattr(functional, name)).parameters.values()
            if parameter.kind == parameter.KEYWORD_ONLY
        }
        assert {*options, name} == set(term.model_fields), name
        assert term.model_fields[name].default is PydanticUndefined
        assert set(options.values()) == {inspect.Parameter.empty}, name


@pytest.mark.parametrize(
    ("target", "term", "name", "options"),
    [
        ("labels", "dice: 1, weights: [0.1, 4.0, 1.0, 1.0]", "dice", {"weights": (0.1, 4, 1, 1)}),
        ("labels", "dice: 1, weights: [4, 1, 2]", "dice", {"weights": (0, 4, 1, 2)}),
        ("subregions", "dice: 1, weights: [4, 1, 2]", "dice", {"weights": (4, 1, 2)}),
        ("binary", "jaccard: 1, weights: [4]", "jaccard", {}),
        ("labels", "focal: 1, alpha: 0.8", "focal", {"alpha": (1 - 0.8, 0.8, 0.8, 0.8)}),
        ("labels", "focal: 1, alpha: [1, 5, 2, 3]", "focal", {"alpha": (1, 5, 2, 3)}),
        ("binary", "focal: 1, alpha: 0.8", "focal", {"alpha": 0.8}),
        ("regions", "focal: 1, alpha: 0.8", "focal", {"alpha": (0.8, 0.8, 0.8)}),
        ("regions", "focal: 1, alpha: [0.8, 0.1, 0.3]", "focal", {"alpha": (0.8, 0.1, 0.3)}),
        (
            "labels",
            "cross_entropy: 1, weights: [1, 5, 2, 3]",
            "cross_entropy",
            {"weights": (1, 5, 2, 3)},
        ),
    ],
)
def test_numbers_per_class(target, term, name, options):
    truth, logits, probability, activation = sample(target)
    expected = getattr(brute_force, name)(truth, probability, activation, **options)
    found = build(target, f"[{{{term}}}]")(truth, logits)
    np.testing.assert_allclose(found, expected, rtol=2e-5)


def test_the_weighted_sum_leaves_out_terms_of_weight_0(monkeypatch):
    monkeypatch.setattr(functional, "top_k", None)
    truth, logits, probability, activation = sample("subregions")
    loss = build(
        "subregions",
        "[{dice: 0.5, weights: [1.5, 1, 2]}, {focal: 2, gamma: 1}, {top_k: 0}, "
        "{dice: 1, smooth: 9}]",
    )
    expected = (
        0.5 * brute_force.dice(truth, probability, activation, weights=(1.5, 1, 2))
        + 2 * brute_force.focal(truth, probability, activation, gamma=1)
        + brute_force.dice(truth, probability, activation, smooth=9)
    )
    np.testing.assert_allclose(loss(truth, logits), expected, rtol=2e-5)
    check_config(loss, activation, 3)


SEEN = ("[{dice: 1}, {cross_entropy: 1}]", "[{dice: 1, weights: [0.1, 4, 1, 1]}]")
UNSEEN = ("[{dice: 1}]", "[{dice: 1, weights: [0.01, 1, 1, 1]}]")


@pytest.mark.parametrize("loss", [*SEEN, *UNSEEN])
def test_a_config_is_warned_of_where_one_class_takes_the_background(loss):
    """A small network learns to tell four kinds of voxels, 19 of 20 of which are background."""
    experiment = load_experiment(None, ["model.target=labels", f"loss={loss}"])
    if loss in SEEN:
        assert experiment.warnings == []
    else:
        assert "background of model.target=labels" in experiment.warnings[0]
        assert "{cross_entropy: 1}" in experiment.warnings[0]
    chosen = _classes_of_a_trained_network(build_loss(experiment.loss, "labels"))
    assert (np.mean(chosen == 0) > 0.9) == (loss in SEEN), np.bincount(chosen, minlength=4)


def _classes_of_a_trained_network(loss):
    random = np.random.default_rng(1)
    label = random.choice(4, size=1000, p=(0.95, 0.007, 0.03, 0.013))
    means = np.random.default_rng(100).normal(0, 1, (4, 4))
    image = (means[label] + random.normal(0, 0.7, (1000, 4))).astype(np.float32)
    masks = np.eye(4, dtype=np.float32)[label][None]
    keras.utils.set_random_seed(1)
    hidden = [keras.layers.Dense(16, "relu") for _ in range(2)]
    network = keras.Sequential([keras.Input((4,)), *hidden, keras.layers.Dense(4)])
    optimizer = keras.optimizers.Adam(1e-2)
    optimizer.build(network.trainable_variables)

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            value = loss(masks, network(image)[None])
        gradients = tape.gradient(value, network.trainable_variables)
        optimizer.apply(gradients, network.trainable_variables)

    for _ in range(100):
        step()
    return np.asarray(network(image)).argmax(-1)


@pytest.mark.parametrize(
    ("target", "loss", "warned"),
    [
        ("subregions", "[{dice: 1}]", False),
        ("labels", "[{tversky: 1}]", True),
        ("labels", "[{jaccard: 1}]", True),
        ("labels", "[{dice: 1}, {focal: 1, alpha: 1}]", True),
        ("labels", "[{dice: 1}, {cross_entropy: 1, weights: [0, 1, 1, 1]}]", True),
        ("labels", "[{dice: 1}, {top_k: 1}]", False),
        ("labels", "[{dice: 0.5}, {focal: 0.5}]", False),
        ("labels", "[{generalised_dice: 1}]", False),
        ("labels", "[{boundary: 1, weights: [1, 1, 1, 1]}]", True),
        ("labels", "[{dice: 1}, {cross_entropy: 0}]", True),
        ("labels", "[{dice: 1}, {cross_entropy: 1e-4}]", True),
        ("labels", "[{dice: 1}, {focal: 1, alpha: [0, 1, 1, 1]}]", True),
        ("labels", "[{dice: 1}, {focal: 1, alpha: 0.8}]", False),
        ("labels", "[{dice: 1, weights: [4, 1, 1]}]", True),
        ("labels", "[{dice: 1, weights: [4, 1, 1]}, {jaccard: 1, weights: [1, 1, 1, 1]}]", False),
    ],
)
def test_which_terms_see_the_background(target, loss, warned):
    warnings = load_experiment(None, [f"model.target={target}", f"loss={loss}"]).warnings
    assert any("background" in warning for warning in warnings) == warned


REPLICAS = """
import numpy as np, tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
from kerasseg.config.experiment import Experiment
from kerasseg.losses.loss import build_loss

loss = build_loss(Experiment().loss, "subregions")
truth = np.zeros((1, 3, 2, 3), np.uint8)
logits = tf.zeros(truth.shape)
alone = float(loss(truth, logits))
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
parts = strategy.experimental_local_results(strategy.run(lambda: loss(truth, logits)))
assert len(parts) == 2
print(alone, *map(float, parts))
"""


def test_each_of_two_replicas_has_half_the_loss_as_keras_adds_their_gradients(tmp_path):
    script = tmp_path / "replicas.py"
    script.write_text(REPLICAS)
    done = run_program([script])
    assert done.returncode == 0, done.stderr
    alone, *parts = map(float, done.stdout.split())
    assert parts == pytest.approx([alone / 2, alone / 2], rel=1e-6)
