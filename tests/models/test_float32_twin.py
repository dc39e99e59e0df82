import keras
import numpy as np
import pytest

from kerasseg.config.model import ModelSettings
from kerasseg.models.build import float32_twin
from tests.models.check_model import build

SETTINGS = {
    "features": (4, 6),
    "bottleneck": 8,
    "residual": "encoder",
    "attention_gates": True,
    "upsampling": "interpolate",
    "dropout": {"rate": 0.5},
}


def image(dimensions):
    shape = (1, *(7, 5, 10)[-dimensions:], 2)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


# Layers of both dimensions take their precision from the same policy.
@pytest.mark.parametrize("dimensions", [2, pytest.param(3, marks=pytest.mark.all_only)])
def test_a_network_trained_in_float16_is_saved_to_run_in_float32(tmp_path, dimensions):
    settings = ModelSettings.model_validate({**SETTINGS, "dimensions": dimensions})
    half, single = build(settings, 2, "mixed_float16"), build(settings, 2)
    assert half.get_layer("encoder_1_block_1_conv_1").compute_dtype == "float16"
    assert float32_twin(single) is single
    half.set_weights([w + 0.01 for w in half.get_weights()])
    single.set_weights(half.get_weights())
    float32_twin(half).save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    values = image(dimensions)
    np.testing.assert_array_equal(np.asarray(loaded(values)), np.asarray(single(values)))
    assert half.get_layer("encoder_1_block_1_conv_1").compute_dtype == "float16"
