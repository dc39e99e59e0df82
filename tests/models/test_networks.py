"""The shared battery over every network, dimension, norm and precision."""

import pytest

from kerasseg.config.model import ModelSettings
from tests.models.check_model import DEFAULT_SHAPES, check_model

NETWORKS = {
    "plain": {},
    "strided": {"downsampling": "strided", "activation": "elu", "encoder_blocks": 1},
    "residual": {
        "residual": "both",
        "downsampling": "strided",
        "encoder_blocks": 1,
        "decoder_blocks": 1,
        "target": "labels",
    },
    "gated": {
        "attention_gates": True,
        "upsampling": "interpolate",
        "dropout": {"rate": 0.1, "place": "everywhere"},
        "activation": "relu",
        "target": "binary",
        "encoder_blocks": 1,
        "decoder_blocks": 1,
    },
}
NORMS = {
    "instance": {"features": (4, 6), "bottleneck": 8},
    "batch": {"features": (4,), "bottleneck": 6},
    "group": {"features": (4,), "bottleneck": 6, "norm_groups": 2},
    "none": {"features": (4,), "bottleneck": 6},
}
"""One level less for the others, which are many."""


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("norm", list(NORMS))
@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("network", list(NETWORKS))
def test_battery(network, dimensions, norm, policy, tmp_path):
    settings = {**NETWORKS[network], **NORMS[norm], "dimensions": dimensions, "norm": norm}
    shapes = DEFAULT_SHAPES if norm == "instance" else DEFAULT_SHAPES[:1]
    check_model(ModelSettings.model_validate(settings), policy, tmp_path, shapes=shapes)
