"""Every loss: against loops over voxels, through the battery, and what holds for all of a kind."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kerasseg.losses.functional import CrossEntropy, Dice, Focal, dice, jaccard, tversky
from kerasseg.losses.loss import LOSSES, WeightedSum
from tests.losses import brute_force
from tests.losses.check_loss import as_probabilities, check_loss, masks

ACTIVATIONS = {"sigmoid": 3, "softmax": 4}
"""Activation -> channels."""

WEIGHTS = (0.1, 4.0, 1.0, 2.0)
OVERLAP = ("dice", "jaccard", "tversky", "focal_tversky", "boundary")
"""Those that are a mean over classes."""

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
        loss = LOSSES[name](**options, from_logits=from_logits, activation=activation)
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
    found = Focal(gamma=2.0, alpha=0.8, from_logits=True)(truth, logits)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", LOSSES)
def test_battery(name, activation, tmp_path):
    loss = LOSSES[name](from_logits=True, activation=activation)
    check_loss(loss, activation, ACTIVATIONS[activation], tmp_path)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_battery_of_a_weighted_sum_with_options(activation, tmp_path):
    channels, kind = ACTIVATIONS[activation], {"from_logits": True, "activation": activation}
    parts = [
        Dice(weights=WEIGHTS[:channels], reduction="sample", squared=True, **kind),
        Focal(gamma=0.5, alpha=(0.8, 0.6, 0.3, 0.5)[:channels], **kind),
        CrossEntropy(weights=WEIGHTS[:channels], **kind),
    ]
    loss = WeightedSum(parts, (0.5, 2.0, 0.25))
    truth = masks((2, 5, 4, channels), activation)
    logits = np.random.default_rng(8).normal(0, 2, truth.shape).astype(np.float32)
    values = [float(part(truth, logits)) for part in parts]
    expected = 0.5 * values[0] + 2 * values[1] + 0.25 * values[2]
    assert float(loss(truth, logits)) == pytest.approx(expected, rel=1e-6)
    check_loss(loss, activation, channels, tmp_path)


@pytest.mark.parametrize("name", sorted({*OVERLAP, "generalised_dice"} - {"boundary"}))
@pytest.mark.parametrize("reduction", ["batch", "sample"])
def test_an_empty_class_costs_nothing_if_left_empty_and_its_false_positives_do(name, reduction):
    truth, loss = np.zeros((2, 3, 5, 4, 2), np.uint8), LOSSES[name](reduction=reduction)
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
    loss = LOSSES["generalised_dice"]()
    assert float(loss(truth, prediction)) == pytest.approx(1 - 1 / below, rel=1e-6)
    # Twice as many voxels of everything, with smooth doubled: the same loss.
    twice, predicted = np.concatenate([truth, truth], 1), np.concatenate([prediction] * 2, 1)
    again = LOSSES["generalised_dice"](smooth=2.0)
    assert float(again(twice, predicted)) == pytest.approx(1 - 1 / below, rel=1e-6)


def test_a_softmax_cross_entropy_without_a_voxel_that_has_a_weight_is_0():
    truth = np.zeros((1, 3, 2, 4), np.uint8)
    truth[..., 0] = 1
    logits = tf.random.stateless_normal(truth.shape, [1, 2])
    loss = CrossEntropy(weights=(0, 1, 1, 1), from_logits=True, activation="softmax")
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(truth, logits)
    assert float(value) == 0 and not tape.gradient(value, logits).numpy().any()
    # And an absent class has no voxel in the mean, whatever its weight.
    values = [
        float(CrossEntropy((1, w, 1, 1), from_logits=True, activation="softmax")(truth, logits))
        for w in (0.1, 50)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-6)


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"boundary"}))
def test_a_million_voxels_of_float16_do_not_overflow(name):
    truth = np.ones((1, 100, 100, 100, 1), np.float16)
    loss = LOSSES[name](from_logits=True)
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
    loss = LOSSES["boundary"]()
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


@settings(max_examples=50, deadline=None)
@given(pair(), st.sampled_from(["batch", "sample"]), st.sampled_from(sorted(LOSSES)))
def test_what_holds_for_all_masks(masks_and_probabilities, reduction, name):
    truth, probability = masks_and_probabilities
    options = {} if name in ("cross_entropy", "focal", "top_k") else {"reduction": reduction}
    loss = LOSSES[name](**options)
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
    there = float(dice(truth, probability, reduction=reduction))
    assert float(dice(probability, truth, reduction=reduction)) == pytest.approx(there, abs=1e-6)
    as_dice = tversky(truth, probability, None, 0.5, reduction, 0.5, 0.5)
    assert float(as_dice) == pytest.approx(there, abs=1e-5)
    union = float(jaccard(truth, probability, reduction=reduction))
    as_jaccard = tversky(truth, probability, None, 1.0, reduction, 1.0, 1.0)
    assert float(as_jaccard) == pytest.approx(union, abs=1e-5)
    assert union >= there - 1e-6
    # Only the weights' ratios count, and one sample alone has no two reductions.
    weights = list(range(1, truth.shape[-1] + 1))
    values = [float(dice(truth, probability, [w * f for w in weights])) for f in (1, 0.1)]
    assert values[0] == pytest.approx(values[1], abs=1e-6)
    of_one = [float(dice(truth[:1], probability[:1], reduction=r)) for r in ("batch", "sample")]
    assert of_one[0] == pytest.approx(of_one[1], abs=1e-6)


def test_the_mean_over_samples_is_the_mean_of_each_samples_loss():
    truth, rng = masks((3, 5, 4, 2), "sigmoid"), np.random.default_rng(0)
    probability = rng.random(truth.shape).astype(np.float32)
    for name in (*OVERLAP, "generalised_dice"):
        alone = [float(LOSSES[name]()(truth[i : i + 1], probability[i : i + 1])) for i in range(3)]
        together = float(LOSSES[name](reduction="sample")(truth, probability))
        assert together == pytest.approx(np.mean(alone), rel=1e-5), name


def test_float32_whatever_the_policy():
    truth = masks((1, 3, 2, 3), "sigmoid")
    keras.config.set_dtype_policy("mixed_float16")
    try:
        for name in LOSSES:
            value = LOSSES[name](from_logits=True)(truth, ops.ones(truth.shape, "float16"))
            assert keras.backend.standardize_dtype(value.dtype) == "float32"
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Dice(activation="relu"), "activation: expected sigmoid or softmax, found 'relu'"),
        (lambda: Dice(reduction="sum"), "reduction: expected batch or sample, found 'sum'"),
        (lambda: WeightedSum([], []), "0 losses and 0 weights"),
        (lambda: WeightedSum([Dice()], [1, 2]), "1 losses and 2 weights"),
        (lambda: WeightedSum([Dice(), Dice(from_logits=True)], [1, 1]), "different predictions"),
        (lambda: call(Dice(), np.ones((2, 3, 3, 1)), np.ones((2, 3, 3, 3))), "same shape"),
        (lambda: call(Dice(), np.ones((2, 3, 3)), np.ones((2, 3, 3, 1))), "same shape"),
        (lambda: call(Dice((1, 2)), *[np.ones((2, 3, 3, 3))] * 2), "2 class weights .* 3 channels"),
        (lambda: call(Dice((0, 0)), *[np.ones((2, 3, 3, 2))] * 2), "nor all 0"),
        (lambda: call(Dice((3, -1)), *[np.ones((2, 3, 3, 2))] * 2), "none may be negative"),
        (lambda: call(Focal(alpha=(0.1,)), *[np.ones((2, 3, 3, 2))] * 2), "alpha: 1 numbers"),
        (lambda: call(Dice(), *[np.ones((2, 3, 1))] * 2, np.ones(2)), "weights per sample"),
    ],
)
def test_refusals(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def call(loss, *arguments):
    return loss(*arguments)
