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


def test_a_network_trained_in_float16_is_saved_to_run_in_float32(tmp_path):
    """TensorFlow cannot run it in float16 on a CPU at all, so only the twin is run here."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        half = unet(2, 3, features=(4, 6), bottleneck=8)
    finally:
        keras.config.set_dtype_policy("float32")
    assert half.get_layer("encoder_1_conv_1").compute_dtype == "float16"
    single = unet(2, 3, features=(4, 6), bottleneck=8)
    assert float32_twin(single) is single
    single.set_weights(half.get_weights())
    float32_twin(half).save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    image = np.random.default_rng(0).normal(size=(1, 8, 4, 12, 2)).astype(np.float32)
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
