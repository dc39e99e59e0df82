import itertools

import keras
import numpy as np
import pytest

from kerasseg.models.float32_twin import float32_twin
from kerasseg.models.unet import unet


def test_the_described_network_has_its_parameters():
    model = unet(4, 3)
    assert model.count_params() == 22_583_875
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds.count("Conv3D") == 2 * 9 + 1 and kinds.count("Conv3DTranspose") == 4
    assert kinds.count("MaxPooling3D") == 4 and kinds.count("GroupNormalization") == 18
    assert kinds.count("LeakyReLU") == 18
    slopes = {layer.negative_slope for layer in model.layers if hasattr(layer, "negative_slope")}
    assert slopes == {0.01}
    names = [layer.name for layer in model.layers]
    assert model.name == "unet_3d" and names[:4] == [
        "image",
        "encoder_1_conv_1",
        "encoder_1_norm_1",
        "encoder_1_activation_1",
    ]
    assert names[-2:] == ["head", "probabilities"]


def test_the_2d_network_is_the_same_one_with_flat_kernels():
    flat, deep = unet(4, 3, dimensions=2), unet(4, 3)
    assert [a.name for a in flat.layers] == [a.name for a in deep.layers]
    assert flat.name == "unet_2d"
    pairs = list(zip(flat.layers, deep.layers, strict=True))
    assert {(type(a).__name__, type(b).__name__) for a, b in pairs} >= {
        ("Conv2D", "Conv3D"),
        ("Conv2DTranspose", "Conv3DTranspose"),
        ("MaxPooling2D", "MaxPooling3D"),
    }
    for a, b in pairs:
        for small, large in zip(a.weights, b.weights, strict=True):
            assert small.shape == (large.shape[1:] if len(large.shape) == 5 else large.shape)
    widths = (4, 32, 64, 128, 256, 512)
    encoder = sum(9 * (a * b + b * b) + 6 * b for a, b in itertools.pairwise(widths))
    decoder = sum(4 * a * b + 27 * a * a + 7 * a for a, b in itertools.pairwise(widths[1:]))
    assert flat.count_params() == encoder + decoder + 32 * 3 + 3 == 7_766_339


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_slices_of_any_size_give_probabilities(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = unet(5, 1, features=(4, 6), bottleneck=8, dimensions=2)
    finally:
        keras.config.set_dtype_policy("float32")
    for height, width in ((8, 12), (4, 20)):
        image = np.random.default_rng(0).normal(0, 30, (3, height, width, 5)).astype(np.float32)
        output = np.asarray(model(image))
        assert output.shape == (3, height, width, 1) and output.dtype == np.float32
        assert np.isfinite(output).all() and (output >= 0).all() and (output <= 1).all()


@pytest.mark.parametrize("shape", [(8, 16, 12), (4, 4, 8)])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_any_size_and_precision_gives_finite_float32_probabilities(shape, policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = unet(2, 3, features=(4, 6), bottleneck=8)
    finally:
        keras.config.set_dtype_policy("float32")
    image = np.random.default_rng(0).normal(0, 30, (1, *shape, 2)).astype(np.float32)
    output = np.asarray(model(image))
    assert output.shape == (1, *shape, 3) and output.dtype == np.float32
    assert np.isfinite(output).all() and (output >= 0).all() and (output <= 1).all()


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_network_trained_in_float16_is_saved_to_run_in_float32(tmp_path, dimensions):
    """TensorFlow cannot run 3-D in float16 on a CPU at all, so only the twin is run here."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        half = unet(2, 3, features=(4, 6), bottleneck=8, dimensions=dimensions)
    finally:
        keras.config.set_dtype_policy("float32")
    assert half.get_layer("encoder_1_conv_1").compute_dtype == "float16"
    single = unet(2, 3, features=(4, 6), bottleneck=8, dimensions=dimensions)
    assert float32_twin(single) is single
    single.set_weights(half.get_weights())
    float32_twin(half).save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    shape = (1, *(8, 4, 12)[-dimensions:], 2)
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(loaded(image)), np.asarray(single(image)))


def test_saved_and_loaded_without_our_code_it_gives_the_same(tmp_path):
    model = unet(2, 3, features=(4,), bottleneck=6)
    image = np.random.default_rng(0).normal(size=(2, 6, 4, 8, 2)).astype(np.float32)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(np.asarray(loaded(image)), np.asarray(model(image)))


def test_instance_norm_makes_samples_independent():
    """A batch of two gives what each gives alone: no statistic is shared between samples."""
    model = unet(1, 3, features=(4,), bottleneck=6)
    image = np.random.default_rng(0).normal(size=(2, 6, 4, 8, 1)).astype(np.float32)
    image[1] *= 50
    together = np.asarray(model(image))
    for i in range(2):
        np.testing.assert_allclose(together[i], np.asarray(model(image[i : i + 1]))[0], atol=1e-4)
