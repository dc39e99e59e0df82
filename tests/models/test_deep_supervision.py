import keras
import numpy as np
import pytest

from kerasseg.config.model import ModelSettings
from kerasseg.models.unet import supervision_logits
from tests.models.check_model import build


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("shape", [(9, 14), (16, 8), (6, 11, 9)])
def test_heads_are_the_lower_levels_through_a_1x1_convolution(shape, policy):
    settings = ModelSettings(dimensions=len(shape), features=(4, 5, 6), bottleneck=7)
    network = build(settings, 2, policy)
    count = network.count_params()
    logits = supervision_logits(network, 2, 3)
    assert network.count_params() == count and len(network.outputs) == 1
    features = [network.get_layer(f"decoder_{level}").output for level in (2, 3)]
    probe = keras.Model(network.input, [*logits, *features])
    image = np.random.default_rng(0).normal(size=(2, *shape, 2)).astype(np.float32)
    outputs = probe(image)
    for i, (found, x) in enumerate(zip(outputs[:2], outputs[2:], strict=True), start=1):
        head = probe.get_layer(f"head_{i + 1}")
        assert head.compute_dtype == keras.DTypePolicy(policy).compute_dtype
        kernel, bias = head.get_weights()
        rows = np.asarray(keras.ops.cast(x, "float32")) @ kernel.reshape(-1, 3) + bias
        coarse = np.zeros(shape)[(slice(None, None, 2**i),) * len(shape)].shape
        expected = rows[(slice(None), *(slice(n) for n in coarse))]
        assert found.dtype == "float32" and found.shape == (2, *coarse, 3)
        tolerance = 1e-5 if policy == "float32" else 0.05
        np.testing.assert_allclose(found, expected, atol=tolerance)


def test_no_heads_are_none():
    network = build(ModelSettings(features=(4,), bottleneck=6), 1)
    assert supervision_logits(network, 0, 3) == []
