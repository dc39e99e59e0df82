"""Loss of several heads, metrics, and what is shared with the network that is saved."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasseg import anatomy
from kerasseg.losses.loss import build_loss
from kerasseg.pipeline.batches import seeds_of
from kerasseg.run_experiment import build_network
from kerasseg.targets import label_to_masks
from kerasseg.training.fit import compile_for_training
from tests.conftest import phantom_experiment

SIZES = {3: (2, 8, 12, 20), 2: (3, 10, 14)}
"""Batch and axes of an image; not all are divisible by 4."""


def make(tmp_path, *options, dimensions=3):
    patch = {3: "[8,16,24]", 2: "[16,24]"}[dimensions]
    sizes = (f"model.dimensions={dimensions}", f"pipeline.patch_size={patch}")
    small = ("model.features=[4,5,6]", "model.encoder_blocks=1", "model.decoder_blocks=1")
    experiment = phantom_experiment(tmp_path, *small, *sizes, *options)
    keras.utils.set_random_seed(0)
    network = build_network(experiment)
    return experiment, network, compile_for_training(experiment, network, 10)


def make_batch(experiment, seed=0, shape=None):
    rng = np.random.default_rng(seed)
    shape = shape or SIZES[experiment.model.dimensions]
    image = rng.normal(size=(*shape, 4)).astype(np.float32)
    label = rng.integers(0, 4, shape).astype(np.uint8)
    return image, label_to_masks(label, experiment.model.target).astype(np.uint8)


def as_list(outputs):
    return outputs if isinstance(outputs, list) else [outputs]


@pytest.mark.usefixtures("steps_not_traced")
@pytest.mark.parametrize(
    ("dimensions", "target", "heads"),
    [(3, "regions", 2), pytest.param(2, "labels", 1, marks=pytest.mark.all_only), (2, "binary", 0)],
)
def test_the_loss_is_the_weighted_mean_of_the_heads_and_of_validation_the_main_ones(
    tmp_path, dimensions, target, heads
):
    options = (f"model.target={target}", f"model.deep_supervision={heads}")
    experiment, network, model = make(tmp_path, *options, dimensions=dimensions)
    image, masks = make_batch(experiment)
    outputs = as_list(model(image))
    assert len(outputs) == heads + 1
    loss = build_loss(experiment.loss, target)
    losses = []
    for level, logits in enumerate(outputs):
        coarse = masks
        for axis in range(1, dimensions + 1):
            places = np.arange(0, masks.shape[axis], 2**level)
            coarse = np.take(coarse, places, axis=axis)
        assert logits.shape == coarse.shape and logits.dtype == "float32"
        losses.append(float(loss(coarse, logits)))
    weights = {0: [1], 1: [2 / 3, 1 / 3], 2: [4 / 7, 2 / 7, 1 / 7]}[heads]
    expected = sum(w * value for w, value in zip(weights, losses, strict=True))
    assert float(model.compute_loss(None, masks, outputs)) == pytest.approx(expected, rel=1e-5)
    found = model.train_on_batch(image, masks, return_dict=True)
    assert found["loss"] == pytest.approx(expected, rel=1e-4)
    after = as_list(model(image))[0]
    model.reset_metrics()  # Keras 3.12 goes on counting
    found = model.test_on_batch(image, masks, return_dict=True)
    assert found["loss"] == pytest.approx(float(loss(masks, after)), rel=1e-4)
    assert network.output_shape[-1] == len(anatomy.TARGETS[target])
    weights = {id(v) for v in model.weights}
    assert weights >= {id(v) for v in network.weights}
    assert len(model.weights) - len(network.weights) == 2 * heads, "a kernel and a bias each"


@pytest.mark.usefixtures("steps_not_traced")
def test_every_head_learns_and_moves_the_layers_below_it(tmp_path):
    experiment, network, model = make(tmp_path, "model.deep_supervision=2", dimensions=2)
    before = [v.numpy().copy() for v in model.trainable_variables]
    model.train_on_batch(*make_batch(experiment))
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert not np.array_equal(variable, old), variable.path
    assert network.output_shape == (None, None, None, 3)


@pytest.mark.usefixtures("steps_not_traced")
@pytest.mark.parametrize("target", ["labels", "subregions", "regions", "binary"])
def test_metrics_are_flat_and_of_the_probabilities(tmp_path, target):
    experiment, network, model = make(tmp_path, f"model.target={target}", dimensions=2)
    image, masks = make_batch(experiment)
    found = model.test_on_batch(image, masks, return_dict=True)
    channels = anatomy.tumour_channels(target)
    scores = ("dice", "iou", "precision", "recall")
    assert found.keys() == {"loss", *scores, *(f"{s}_{c}" for s in scores for c in channels)}
    probabilities = np.asarray(network(image))
    chosen = probabilities >= 0.5
    if target == "labels":
        chosen = np.eye(4)[probabilities.argmax(-1)] > 0
    index = list(anatomy.TARGETS[target]).index(channels[-1])
    truth, prediction = masks[..., index] > 0, chosen[..., index]
    both = (truth & prediction).sum()
    name = channels[-1]
    dice = 2 * both / (truth.sum() + prediction.sum())
    assert found[f"dice_{name}"] == pytest.approx(dice, abs=1e-6)
    assert found[f"precision_{name}"] == pytest.approx(both / max(prediction.sum(), 1), abs=1e-6)
    assert found[f"recall_{name}"] == pytest.approx(both / truth.sum(), abs=1e-6)


def test_the_encoder_alone_is_slower(tmp_path):
    options = ("optimizer.encoder_factor=0.1", "model.deep_supervision=1")
    _, _, model = make(tmp_path, *options, dimensions=2)
    slow = {
        variable.path.split("/")[-2].partition("_")[0]
        for index, variable in enumerate(model.trainable_variables)
        if model.optimizer._rate_factors[index] != 1.0
    }
    assert slow == {"encoder", "bottleneck"}


@pytest.mark.usefixtures("steps_not_traced")
def test_the_clip_bounds_an_accumulated_update(tmp_path):
    """SGD without momentum at rate 1: the update is the clipped mean gradient."""
    options = (
        "optimizer={name: sgd, learning_rate: 1.0, momentum: 0, nesterov: false, "
        "schedule: constant, warmup_epochs: 0, weight_decay: 0, clip_norm: 0.01}",
        "training.gradient_accumulation=2",
    )
    experiment, _, model = make(tmp_path, *options, dimensions=2)
    before = [v.numpy().copy() for v in model.trainable_variables]
    batches = [make_batch(experiment, seed) for seed in (0, 1)]
    joined = [tf.data.Dataset.from_tensors(batch) for batch in batches]
    model.make_train_function()
    model.train_function(iter(joined[0].concatenate(joined[1])))
    moved = [v.numpy() - old for v, old in zip(model.trainable_variables, before, strict=True)]
    length = np.sqrt(sum(np.sum(step**2) for step in moved))
    assert length == pytest.approx(0.01, rel=1e-3)
    gradients = np.mean([flat_gradient(model, before, *batch) for batch in batches], axis=0)
    assert np.linalg.norm(gradients) > 0.02, "or there was nothing to clip"
    expected = -0.01 * gradients / np.linalg.norm(gradients)
    np.testing.assert_allclose(np.concatenate([m.ravel() for m in moved]), expected, atol=1e-6)


def flat_gradient(model, weights, image, masks):
    """Of a batch at these weights, by a tape of its own."""
    for variable, value in zip(model.trainable_variables, weights, strict=True):
        variable.assign(value)
    with tf.GradientTape() as tape:
        loss = model.compute_loss(None, masks, model(image, training=True))
    gradients = tape.gradient(loss, model.trainable_variables)
    return np.concatenate([np.ravel(g) for g in gradients])


@pytest.mark.usefixtures("steps_not_traced")
@pytest.mark.parametrize(
    ("policy", "scale", "rounding"),
    [
        ("mixed_float16", 2**15, 0.05),
        # test_bfloat16 compares its gradients with those of float32.
        pytest.param("mixed_bfloat16", 1, 0.3, marks=pytest.mark.all_only),
    ],
)
def test_it_trains_in_mixed_precision(tmp_path, policy, scale, rounding):
    """With a scaled loss in float16; the weights are those of float32, up to rounding."""
    options = (
        "model.downsampling=strided",  # TensorFlow has no float16 pooling on a CPU
        "model.deep_supervision=1",
        "optimizer={name: sgd, ema: 0.9, learning_rate: 0.1, warmup_epochs: 0}",
    )
    moved = []
    for each in ("float32", policy):
        keras.config.set_dtype_policy(each)
        try:
            experiment, _, model = make(tmp_path, *options, dimensions=2)
            before = np.concatenate([np.ravel(v) for v in model.trainable_variables])
            logs = model.train_on_batch(*make_batch(experiment), return_dict=True)
            assert np.isfinite(logs["loss"]) and int(model.loss_scale.skipped) == 0
            outputs = model(make_batch(experiment)[0])
        finally:
            keras.config.set_dtype_policy("float32")
        assert all(logits.dtype == "float32" for logits in outputs)
        assert {v.dtype for v in model.trainable_variables} == {"float32"}
        after = np.concatenate([np.ravel(v) for v in model.trainable_variables])
        moved.append(after - before)
    assert model.loss_scale.dynamic == (scale > 1)
    assert float(model.loss_scale.scale) == scale
    size = np.linalg.norm(moved[0])
    assert 0 < np.linalg.norm(moved[1] - moved[0]) < rounding * size


SGD = (
    "optimizer={name: sgd, learning_rate: 0.1, momentum: 0, nesterov: false, schedule: constant, "
    "warmup_epochs: 0}"
)
"""Its steps are in proportion to the gradient; Adam's blow up the last digit of a small one."""
TINY_LEVELS = ("model.features=[3,4]", "model.bottleneck=5")
PRETRAINED_SIZE = (3, 96, 96)
"""Of slices of 32 pixels and less one pixel is left in the deepest layers, and their norms are over
the three values of the batch: they blow up the last digit of what comes in. Changed by one unit in
it, the plain step itself gives moving variances that differ by 0.004, and the compiled one differs
by 0.1. Over the 27 values of these slices weights agree to 2e-7, moving variances to 5e-6."""

KINDS = {
    "3-D": (3, "model.norm=instance"),
    "heads": (3, "model.residual=both", "model.downsampling=strided", "model.deep_supervision=1"),
    "attention": (
        3,
        "model.attention_gates=true",
        "model.upsampling=interpolate",
        "model.norm=batch",
    ),
    "2-D": (
        2,
        "model.target=labels",
        "model.downsampling=strided",  # TensorFlow has no float16 pooling on a CPU
        "training.gradient_accumulation=2",
    ),
    "device": (
        3,
        "pipeline.augment_on=device",
        "augment.preset=light",
        f"pipeline.patch_size={list(SIZES[3][1:])}",  # that of the batches
    ),
    "pretrained": (
        2,
        "model={dimensions: 2, network: pretrained_unet, target: binary, norm: batch, "
        "decoder_blocks: 1, pretrained: {encoder: mobilenetv2, weights: none, "
        "decoder_features: [4, 4, 4, 4, 4]}}",
        f"pipeline.patch_size={list(PRETRAINED_SIZE[1:])}",
    ),
}
KINDS["together"] = (3, *(o for k in ("heads", "attention") for o in KINDS[k][1:]))
"""Kinds of networks and steps: their dimensions and overrides."""


@pytest.mark.parametrize(
    ("kind", "policy"),
    [
        ("together", "float32"),
        # Each makes two graphs, which takes many seconds.
        pytest.param("2-D", "mixed_float16", marks=pytest.mark.all_only),
        *(
            pytest.param(kind, "float32", marks=pytest.mark.all_only)
            for kind in KINDS
            if kind != "together"
        ),
    ],
)
def test_a_step_compiled_by_xla_is_the_plain_step(tmp_path, kind, policy):
    """As every user with one GPU gets it, for two updates from the same weights and batches."""
    dimensions, *options = KINDS[kind]
    tiny = () if kind == "pretrained" else TINY_LEVELS
    after, losses = [], []
    keras.config.set_dtype_policy(policy)
    try:
        for compiled in (False, True):
            choice = f"training.jit_compile={str(compiled).lower()}"
            experiment, _, model = make(
                tmp_path, *tiny, SGD, *options, choice, dimensions=dimensions
            )
            assert model.compiled_by_xla == compiled
            start = model.get_weights()
            size = PRETRAINED_SIZE if kind == "pretrained" else None
            batches = [make_batch(experiment, seed, size) for seed in range(4)]
            if model.augmentation is not None:
                batches = [(i.astype(np.float16), m, seeds_of([1, 2], len(i))) for i, m in batches]
            parts = (np.stack(part) for part in zip(*batches, strict=True))
            iterator = iter(tf.data.Dataset.from_tensor_slices(tuple(parts)))
            model.make_train_function()
            losses.append([float(model.train_function(iterator)["loss"]) for _ in range(2)])
            after.append(model.get_weights())
    finally:
        keras.config.set_dtype_policy("float32")
    exact = policy == "float32"
    np.testing.assert_allclose(*losses, rtol=1e-5 if exact else 1e-2)
    for plain, compiled in zip(*after, strict=True):
        np.testing.assert_allclose(compiled, plain, atol=1e-5 if exact else 1e-2)
    moved = [np.abs(new - old).max() for new, old in zip(after[0], start, strict=True)]
    assert max(moved) > (1e-3 if exact else 2e-2), "or there was nothing to compare"
