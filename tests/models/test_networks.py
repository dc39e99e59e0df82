"""The shared battery over networks, dimensions, norms and precisions, every pair of them."""

import itertools

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
"""The other norms have one level less, which takes less time."""


POLICIES = ("float32", "mixed_float16", "mixed_bfloat16")
COMBINATIONS = [
    (network, norm, 2 + (i + j) % 2, POLICIES[(i + j) % 3])
    for i, network in enumerate(NETWORKS)
    for j, norm in enumerate(NORMS)
]
"""16 of the 96 combinations."""


def test_the_combinations_have_every_pair():
    choices = [list(NETWORKS), list(NORMS), [2, 3], list(POLICIES)]
    for a, b in itertools.combinations(range(4), 2):
        found = {(row[a], row[b]) for row in COMBINATIONS}
        assert found == set(itertools.product(choices[a], choices[b]))


@pytest.mark.parametrize(("network", "norm", "dimensions", "policy"), COMBINATIONS)
def test_battery(network, dimensions, norm, policy, tmp_path):
    settings = {**NETWORKS[network], **NORMS[norm], "dimensions": dimensions, "norm": norm}
    # A size that is divisible needs no padding: one network of each number of dimensions has it.
    both = norm == "instance" and network in ("gated", "residual")
    shapes = DEFAULT_SHAPES if both else DEFAULT_SHAPES[:1]
    check_model(ModelSettings.model_validate(settings), policy, tmp_path, shapes=shapes)
