"""mixed_bfloat16 on a CPU: right gradients, or a refusal."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasseg.doctor import _random_batch
from kerasseg.errors import UserError
from kerasseg.run_experiment import build_network
from kerasseg.training.checks import check_precision, choose_precision
from kerasseg.training.fit import compile_for_training
from tests.conftest import phantom_experiment

GRADIENT = (
    "optimizer={name: sgd, momentum: 0, nesterov: false, weight_decay: 0, learning_rate: 1, "
    "schedule: constant, warmup_epochs: 0}"
)
"""Whose update is the gradient."""
TWO_LEVELS = ("model.features=[4,6]", "model.bottleneck=8")


def kernel_gradients(experiment, policy):
    """Of one update, by the kernel's path; and the loss."""
    keras.config.set_dtype_policy(policy)
    try:
        keras.utils.set_random_seed(0)
        model = compile_for_training(experiment, build_network(experiment), 1)
        before = [v.numpy() for v in model.trainable_variables]
        loss = model.train_on_batch(*map(tf.constant, _random_batch(experiment)))
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("bottleneck").compute_dtype == policy.removeprefix("mixed_")
    assert int(model.failure) == 0 and float(model.loss_scale.scale) == 1.0
    moved = {}
    for variable, start in zip(model.trainable_variables, before, strict=True):
        assert variable.dtype == "float32"
        if len(variable.shape) > 1:
            moved[variable.path] = start - variable.numpy()
    return moved, float(np.ravel(loss)[0])


@pytest.mark.usefixtures("steps_not_traced")
@pytest.mark.parametrize(
    "options",
    [
        ("pipeline.patch_size=[12,16,20]",),
        pytest.param(
            ("pipeline.patch_size=[8,16,20]", "model.kernel=1"), marks=pytest.mark.all_only
        ),
        pytest.param(
            ("pipeline.patch_size=[12,8,20]", "model.downsampling=strided", "model.norm=batch"),
            marks=pytest.mark.all_only,
        ),
        ("model.dimensions=2", "pipeline.patch_size=[8,20]"),
    ],
)
def test_a_step_is_that_of_float32_up_to_rounding(tmp_path, options):
    """Of the kernels: TensorFlow adds up a bias's gradient in bfloat16 itself on a CPU."""
    experiment = phantom_experiment(tmp_path, GRADIENT, *TWO_LEVELS, *options)
    check_precision(experiment, "mixed_bfloat16")
    exact, exact_loss = kernel_gradients(experiment, "float32")
    found, loss = kernel_gradients(experiment, "mixed_bfloat16")
    assert loss == pytest.approx(exact_loss, rel=0.01)
    # All kernels together: a single small one may round away, by the processor.
    difference = sum(float(np.sum((found[path] - k) ** 2)) for path, k in exact.items())
    assert difference < 0.7**2 * sum(float(np.sum(k**2)) for k in exact.values())


@pytest.mark.parametrize(
    ("options", "kernel", "thinnest", "least"),
    [
        (("pipeline.patch_size=[8,16,12]",), 3, 2, 12),
        (("pipeline.patch_size=[16,16,12]", "model.kernel=5"), 5, 4, 20),
        (("pipeline.patch_size=[4,16,12]",), 3, 1, 12),
        (
            ("pipeline.patch_size=[16,32,32]", "model.features=[4,4,4]", "model.kernel=3"),
            *(3, 2, 24),
        ),
    ],
)
def test_feature_maps_thinner_than_the_kernel_are_refused(
    tmp_path, options, kernel, thinnest, least
):
    experiment = phantom_experiment(tmp_path, *TWO_LEVELS, *options)
    with pytest.raises(UserError) as error:
        check_precision(experiment, "mixed_bfloat16")
    message = str(error.value)
    assert f"thinner than model.kernel={kernel}" in message
    assert f"is {thinnest} deep in the bottleneck" in message
    assert f"a depth of at least {least}, or training.precision=float32" in message
    check_precision(experiment, "float32")
    height, width = experiment.pipeline.patch_size[1:]
    deeper = f"pipeline.patch_size=[{least},{height},{width}]"
    check_precision(phantom_experiment(tmp_path, *TWO_LEVELS, *options, deeper), "mixed_bfloat16")


def test_other_depths_and_devices_are_not(tmp_path, monkeypatch):
    for options in (
        ("pipeline.patch_size=[12,16,8]",),
        ("pipeline.patch_size=[8,16,12]", "model.kernel=1"),
        ("model.dimensions=2", "pipeline.patch_size=[8,16]"),
    ):
        check_precision(phantom_experiment(tmp_path, *TWO_LEVELS, *options), "mixed_bfloat16")
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: ["GPU:0"])
    check_precision(phantom_experiment(tmp_path, *TWO_LEVELS), "mixed_bfloat16")


def test_it_is_allowed_without_a_gpu_and_float16_is_not():
    assert choose_precision("mixed_bfloat16") == ("mixed_bfloat16", "as configured")
    assert choose_precision("auto") == ("float32", "no GPU")
    with pytest.raises(UserError, match=r"mixed_float16 needs a GPU.*training.precision=auto"):
        choose_precision("mixed_float16")
