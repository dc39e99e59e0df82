"""The same weights in keras-hub's SAM and in ours give the same masks; skips without keras-hub."""

import numpy as np
import pytest

from kerasseg.models.sam.weights import assign_tensors
from tests.models.sam.make_reference import (
    fill_keras_hub,
    keras_hub_layers,
    keras_hub_outputs,
    keras_hub_sam,
)
from tests.models.sam.sam_parts import (
    CHANNELS,
    DECODER,
    PROMPTS,
    VIT,
    meta_tensors,
    parts,
    segment,
)


def test_equal_to_keras_hub_with_any_prompt():
    pytest.importorskip("keras_hub")
    side = 96  # 6 x 6 tokens in windows of 3
    layers = parts("vit", side)
    tensors = meta_tensors(layers)
    assign_tensors(layers, tensors, "seeded")
    sam = keras_hub_sam(side, VIT, CHANNELS, DECODER, 8)
    keras_hub_outputs("masks", sam, side)
    fill_keras_hub(keras_hub_layers(*sam), tensors)
    for kind in PROMPTS:
        found = segment(layers, kind)
        for a, b in zip(found, keras_hub_outputs(kind, sam, side), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)
