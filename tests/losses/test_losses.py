"""Every loss: against loops over voxels, through the battery, and what holds for all of a kind."""

import json
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kerasseg.config.loss import TERMS
from kerasseg.losses.loss import SegmentationLoss
from tests.losses import brute_force
from tests.losses.check_loss import (
    as_probabilities,
    check_loss,
    check_training,
    loss_of,
    masks,
)

ACTIVATIONS = {"sigmoid": 3, "softmax": 4}
"""Activation -> channels."""

WEIGHTS = (0.1, 4.0, 1.0, 2.0)
OVERLAP = ("dice", "jaccard", "tversky", "focal_tversky", "boundary")
"""The losses that are a mean over classes."""

OPTIONS = {
    "dice": [{}, {"squared": True, "smooth": 0.01}],
    "generalised_dice": [{}, {"smooth": 1e-3}],
    "jaccard": [{}, {"smooth": 5.0}],
    "tversky": [{}, {"alpha": 0.9, "beta": 0.2, "smooth": 0.5}],
    "focal_tversky": [{}, {"alpha": 0.9, "beta": 0.2, "gamma": 1.5}],
    "cross_entropy": [{}],
    "focal": [{}, {"gamma": 0.5}, {"gamma": 0.0}, {"gamma": 2.0, "alpha": (0.8, 0.3, 0.5, 0.1)}],
    "top_k": [{}, {"share": 0.37}, {"share": 1.0}, {"share": 1e-9}],
    "boundary": [{}, {"width": 5, "tolerance": 3, "smooth": 0.1}],
}
SHAPES = {"2d": (3, 5, 4), "3d": (2, 3, 5, 4)}


def cases():
    for name, options in OPTIONS.items():
        more = [{}]
        if name in (*OVERLAP, "cross_entropy"):
            more = [{}, {"weights": WEIGHTS}]
        for option in options:
            for extra in more:
                for reduction in ("batch", "sample"):
                    if name in (*OVERLAP, "generalised_dice"):
                        yield name, {**option, **extra, "reduction": reduction}
                    elif reduction == "batch":
                        yield name, {**option, **extra}


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_against_loops_over_voxels(shape, activation, from_logits):
    channels = ACTIVATIONS[activation]
    truth = masks((*SHAPES[shape], channels), activation, seed=7)
    truth[0, ..., 1] = 0  # a class that one sample does not have
    if activation == "softmax":
        truth[0, ..., 0] = 1 - truth[0, ..., 1:].sum(-1)
    logits = np.random.default_rng(8).normal(0, 2, truth.shape).astype(np.float32)
    probability = as_probabilities(logits, activation)
    values = set()
    for name, options in cases():
        for key in ("weights", "alpha"):
            if isinstance(options.get(key), tuple):
                options[key] = options[key][:channels]
        loss = loss_of(name, from_logits, activation, **options)
        found = loss(truth, logits if from_logits else probability)
        expected = getattr(brute_force, name)(truth, probability, activation, **options)
        np.testing.assert_allclose(found, expected, rtol=2e-5, err_msg=f"{name} {options}")
        values.add(round(expected, 7))
    assert len(values) > 0.9 * len(list(cases())), "every option changes the loss"


def test_one_alpha_for_all_channels_of_a_sigmoid_target():
    truth = masks((2, 5, 4, 3), "sigmoid")
    logits = np.random.default_rng(8).normal(0, 2, truth.shape).astype(np.float32)
    probability = as_probabilities(logits, "sigmoid")
    expected = brute_force.focal(truth, probability, "sigmoid", gamma=2.0, alpha=0.8)
    found = loss_of("focal", True, gamma=2.0, alpha=0.8)(truth, logits)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", TERMS)
def test_battery(name, activation, tmp_path):
    loss = loss_of(name, True, activation)
    check_loss(loss, activation, ACTIVATIONS[activation])


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        # Of each kind one; the others are terms of the same class, whose gradients TensorFlow makes
        # of the values that are tested above.
        pytest.param(
            name,
            list(ACTIVATIONS)[i % 2],
            marks=() if name in ("dice", "cross_entropy", "boundary") else pytest.mark.all_only,
        )
        for i, name in enumerate(TERMS)
    ],
)
def test_a_short_training(name, activation, tmp_path):
    loss = loss_of(name, True, activation)
    check_training(loss, activation, ACTIVATIONS[activation], tmp_path)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_battery_of_a_weighted_sum_with_options(activation, tmp_path):
    channels = ACTIVATIONS[activation]
    parts = {
        "dice": {"weights": WEIGHTS[:channels], "reduction": "sample", "squared": True},
        "focal": {"gamma": 0.5, "alpha": (0.8, 0.6, 0.3, 0.5)[:channels]},
        "cross_entropy": {"weights": WEIGHTS[:channels]},
    }
    terms = [
        {name: weight, **options}
        for (name, options), weight in zip(parts.items(), (0.5, 2.0, 0.25), strict=True)
    ]
    loss = SegmentationLoss(terms, True, activation)
    truth = masks((2, 5, 4, channels), activation)
    logits = np.random.default_rng(8).normal(0, 2, truth.shape).astype(np.float32)
    values = [
        float(loss_of(name, True, activation, **options)(truth, logits))
        for name, options in parts.items()
    ]
    expected = 0.5 * values[0] + 2 * values[1] + 0.25 * values[2]
    assert float(loss(truth, logits)) == pytest.approx(expected, rel=1e-6)
    check_loss(loss, activation, channels)
    check_training(loss, activation, channels, tmp_path)


@pytest.mark.parametrize("name", sorted({*OVERLAP, "generalised_dice"} - {"boundary"}))
@pytest.mark.parametrize("reduction", ["batch", "sample"])
def test_an_empty_class_costs_nothing_if_left_empty_and_its_false_positives_do(name, reduction):
    truth, loss = np.zeros((2, 3, 5, 4, 2), np.uint8), loss_of(name, reduction=reduction)
    assert float(loss(truth, np.zeros(truth.shape))) == pytest.approx(0, abs=1e-4)
    prediction = tf.fill(truth.shape, 0.25)
    with tf.GradientTape() as tape:
        tape.watch(prediction)
        value = loss(truth, prediction)
    # sum(p) over what is summed together: voxels of a class, of both samples or one, or of both
    # classes in the one ratio of generalised Dice.
    total = 0.25 * 60 * (2 if reduction == "batch" else 1)
    total *= {"generalised_dice": 2, "tversky": 0.3, "focal_tversky": 0.3}.get(name, 1)
    exponent = 0.75 if name == "focal_tversky" else 1
    assert float(value) == pytest.approx((total / (total + 1)) ** exponent, rel=1e-5)
    assert (tape.gradient(value, prediction).numpy() > 0).all()


def test_generalised_dice_gives_an_absent_class_the_weight_of_the_rarest_present():
    truth = np.zeros((1, 40, 1, 3), np.uint8)
    truth[0, :30, 0, 0], truth[0, 30:40, 0, 1] = 1, 1
    prediction = np.zeros(truth.shape)
    prediction[0, :3, 0, 2] = 1  # of the absent class
    weights = (1 / 9, 1, 1)
    below = weights[0] * 30 + weights[1] * 10 + weights[2] * 3 + 1
    loss = loss_of("generalised_dice")
    assert float(loss(truth, prediction)) == pytest.approx(1 - 1 / below, rel=1e-6)
    # Twice as many voxels of everything, with smooth doubled: the same loss.
    twice, predicted = np.concatenate([truth, truth], 1), np.concatenate([prediction] * 2, 1)
    again = loss_of("generalised_dice", smooth=2.0)
    assert float(again(twice, predicted)) == pytest.approx(1 - 1 / below, rel=1e-6)


def test_a_softmax_cross_entropy_without_a_voxel_that_has_a_weight_is_0():
    truth = np.zeros((1, 3, 2, 4), np.uint8)
    truth[..., 0] = 1
    logits = tf.random.stateless_normal(truth.shape, [1, 2])
    loss = loss_of("cross_entropy", True, "softmax", weights=(0, 1, 1, 1))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(truth, logits)
    assert float(value) == 0 and not tape.gradient(value, logits).numpy().any()
    # And an absent class has no voxel in the mean, whatever its weight.
    values = [
        float(loss_of("cross_entropy", True, "softmax", weights=(1, w, 1, 1))(truth, logits))
        for w in (0.1, 50)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-6)


@pytest.mark.parametrize("name", sorted(set(TERMS) - {"boundary"}))
def test_a_million_voxels_of_float16_do_not_overflow(name):
    truth = np.ones((1, 100, 100, 100, 1), np.float16)
    loss = loss_of(name, True)
    assert float(loss(truth, 12 * truth)) == pytest.approx(0, abs=1e-3)
    half = float(loss(truth, 0 * truth))  # p = 1/2 everywhere
    expected = {
        "dice": 1 - 1 / 1.5,
        "generalised_dice": 1 - 1 / 1.5,
        "jaccard": 0.5,
        "tversky": 0.35 / 0.85,
        "focal_tversky": (0.35 / 0.85) ** 0.75,
        "cross_entropy": np.log(2),
        "focal": np.log(2) / 4,
        "top_k": np.log(2),
    }
    assert half == pytest.approx(expected[name], rel=1e-4)


def test_a_million_voxels_of_boundaries_in_float16():
    truth = np.zeros((1, 100, 100, 100, 1), np.float16)
    truth[:, ::2] = 1  # half of all voxels are outline
    loss = loss_of("boundary")
    assert float(loss(truth, truth)) == pytest.approx(0, abs=1e-6)
    # No outline predicted: R = 1 / (half a million + 1), P = 1.
    recall = 1 / 500_001
    assert float(loss(truth, 0 * truth)) == pytest.approx(1 - 2 * recall / (1 + recall), rel=1e-6)


@st.composite
def pair(draw):
    """Truth, probabilities (B, H, W, K)."""
    shape = tuple(draw(st.integers(1, 4)) for _ in range(4))
    seed, share = draw(st.integers(0, 2**31)), draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    rng = np.random.default_rng(seed)
    truth = (rng.random(shape) < share).astype(np.float32)
    return truth, rng.random(shape).astype(np.float32) ** draw(st.sampled_from([0.1, 1.0, 10.0]))


@given(pair(), st.sampled_from(["batch", "sample"]), st.sampled_from(sorted(TERMS)))
def test_what_holds_for_all_masks(masks_and_probabilities, reduction, name):
    truth, probability = masks_and_probabilities
    options = {} if name in ("cross_entropy", "focal", "top_k") else {"reduction": reduction}
    loss = loss_of(name, **options)
    value = float(loss(truth, probability))
    assert value >= 0 and (value <= 1 + 1e-6 or not options)
    order = np.random.default_rng(0).permutation(len(truth))
    assert float(loss(truth[order], probability[order])) == pytest.approx(value, abs=1e-5)
    flipped = float(loss(truth[:, ::-1], probability[:, ::-1]))
    assert flipped == pytest.approx(value, abs=1e-5), "mirrored, it is the same"
    channels = np.random.default_rng(1).permutation(truth.shape[-1])
    shuffled = float(loss(truth[..., channels], probability[..., channels]))
    assert shuffled == pytest.approx(value, abs=1e-5), "no class is special"
    assert float(loss(truth, truth)) == pytest.approx(0, abs=1e-4)
    assert float(loss(truth, truth)) <= value + 1e-4, "nothing is better than the truth"


@settings(max_examples=30, deadline=None)
@given(pair(), st.sampled_from(["batch", "sample"]))
def test_how_the_overlap_losses_hang_together(masks_and_probabilities, reduction):
    truth, probability = masks_and_probabilities

    def value(name, **options):
        return float(loss_of(name, **{"reduction": reduction, **options})(truth, probability))

    there, union = value("dice"), value("jaccard")
    swapped = float(loss_of("dice", reduction=reduction)(probability, truth))
    assert swapped == pytest.approx(there, abs=1e-6)
    as_dice = value("tversky", smooth=0.5, alpha=0.5, beta=0.5)
    assert as_dice == pytest.approx(there, abs=1e-5)
    as_jaccard = value("tversky", alpha=1.0, beta=1.0)
    assert as_jaccard == pytest.approx(union, abs=1e-5)
    assert union >= there - 1e-6
    # Only the weights' ratios count, and one sample alone has no two reductions.
    weights = list(range(1, truth.shape[-1] + 1))
    values = [value("dice", weights=[w * f for w in weights]) for f in (1, 0.1)]
    assert values[0] == pytest.approx(values[1], abs=1e-6)
    of_one = [
        float(loss_of("dice", reduction=r)(truth[:1], probability[:1])) for r in ("batch", "sample")
    ]
    assert of_one[0] == pytest.approx(of_one[1], abs=1e-6)


def test_the_mean_over_samples_is_the_mean_of_each_samples_loss():
    truth, rng = masks((3, 5, 4, 2), "sigmoid"), np.random.default_rng(0)
    probability = rng.random(truth.shape).astype(np.float32)
    for name in (*OVERLAP, "generalised_dice"):
        alone = [float(loss_of(name)(truth[i : i + 1], probability[i : i + 1])) for i in range(3)]
        together = float(loss_of(name, reduction="sample")(truth, probability))
        assert together == pytest.approx(np.mean(alone), rel=1e-5), name


def test_float32_whatever_the_policy():
    truth = masks((1, 3, 2, 3), "sigmoid")
    keras.config.set_dtype_policy("mixed_float16")
    try:
        for name in TERMS:
            value = loss_of(name, True)(truth, ops.ones(truth.shape, "float16"))
            assert keras.backend.standardize_dtype(value.dtype) == "float32"
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: loss_of("dice", activation="relu"), "activation: .* sigmoid or softmax, .*'relu'"),
        (lambda: loss_of("dice", reduction="sum"), "reduction\n.*'batch' or 'sample'.*'sum'"),
        (lambda: loss_of("dice", gamma=2), "gamma\n.*not permitted"),
        (lambda: loss_of("hinge"), "Unable to extract tag"),
        (lambda: SegmentationLoss([]), "at least one"),
        (lambda: call("dice", np.ones((2, 3, 3, 1)), np.ones((2, 3, 3, 3))), "same shape"),
        (lambda: call("dice", np.ones((2, 3, 3)), np.ones((2, 3, 3, 1))), "same shape"),
        (lambda: call("dice", *twice(3), weights=(1, 2)), "2 class weights .* 3 channels"),
        (lambda: call("dice", *twice(2), weights=(0, 0)), "nor all 0"),
        (lambda: loss_of("dice", weights=(3, -1)), "greater than or equal to 0"),
        (lambda: call("focal", *twice(2), alpha=(0.1,)), "alpha: 1 numbers"),
    ],
)
def test_refusals(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def twice(channels):
    return [np.ones((2, 3, 3, channels))] * 2


def call(name, *arguments, **options):
    return loss_of(name, **options)(*arguments)


FORMER_SUM = {
    "module": "kerasseg.losses.loss",
    "class_name": "WeightedSum",
    "registered_name": "kerasseg>WeightedSum",
    "config": {
        "losses": [
            {
                "module": "kerasseg.losses.functional",
                "class_name": "FocalTversky",
                "registered_name": "kerasseg>FocalTversky",
                "config": {
                    "from_logits": True,
                    "activation": "softmax",
                    "name": "focal_tversky",
                    "weights": [0.1, 1.0],
                    "smooth": 1.0,
                    "reduction": "sample",
                    "alpha": 0.3,
                    "beta": 0.7,
                    "gamma": 1.5,
                },
            },
            {
                "module": "kerasseg.losses.functional",
                "class_name": "TopK",
                "registered_name": "kerasseg>TopK",
                "config": {
                    "from_logits": True,
                    "activation": "softmax",
                    "name": "top_k",
                    "share": 0.2,
                },
            },
        ],
        "weights": [0.5, 2.0],
        "name": "loss",
    },
}
"""The loss in a .keras file written when every loss was a class of its own."""


@pytest.mark.parametrize("saved", [FORMER_SUM, FORMER_SUM["config"]["losses"][0]])
def test_networks_compiled_with_an_earlier_version_load(tmp_path, saved):
    inputs = keras.Input((None, 2))
    network = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    network.compile(loss=loss_of("dice", True))
    path = tmp_path / "network.keras"
    network.save(path)
    with zipfile.ZipFile(path) as file:
        contents = {name: file.read(name) for name in file.namelist()}
    config = json.loads(contents["config.json"])
    config["compile_config"]["loss"] = saved
    contents["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, content in contents.items():
            file.writestr(name, content)
    loaded = keras.saving.load_model(path)
    focal_tversky = {"weights": (0.1, 1.0), "reduction": "sample", "gamma": 1.5}
    options = {"focal_tversky": focal_tversky, "top_k": {"share": 0.2}}
    weights = {"focal_tversky": 0.5, "top_k": 2.0} if saved is FORMER_SUM else {"focal_tversky": 1}
    truth, logits = masks((2, 5, 2), "softmax"), np.random.default_rng(0).normal(size=(2, 5, 2))
    expected = sum(
        weight * float(loss_of(name, True, "softmax", **options[name])(truth, logits))
        for name, weight in weights.items()
    )
    assert float(loaded.loss(truth, logits)) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_array_equal(loaded(logits), network(logits))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_sample_of_weight_2_counts_as_two_and_one_of_weight_0_as_none(activation):
    channels = ACTIVATIONS[activation]
    truth = masks((3, 5, 4, channels), activation, seed=3)
    logits = np.random.default_rng(4).normal(0, 2, truth.shape).astype(np.float32)
    for name, options in cases():
        for key in ("weights", "alpha"):
            if isinstance(options.get(key), tuple):
                options[key] = options[key][:channels]
        loss = loss_of(name, True, activation, **options)
        # Of twice the voxels the worst share would be others, so there only their ratio counts.
        weight, counted = ([3, 0, 3], [0, 2]) if name == "top_k" else ([2, 0, 1], [0, 0, 2])
        expected, where = loss(truth[counted], logits[counted]), f"{name} {options}"
        weight = np.array(weight, np.float32)
        np.testing.assert_allclose(loss(truth, logits, weight), expected, rtol=1e-5, err_msg=where)
        found = loss(truth, logits, weight[:, None])
        np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=where)
        assert float(loss(truth, logits, np.zeros(3))) == pytest.approx(0, abs=1e-4), where


def test_weights_of_voxels_are_refused():
    truth = masks((3, 5, 4, 3), "sigmoid")
    with pytest.raises(ValueError, match=r"one number for each sample, of shape \(B,\), found"):
        loss_of("dice")(truth, truth, np.ones((3, 5, 4)))
