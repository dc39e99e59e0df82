"""The same weights in keras-hub's SAM and in ours give the same masks; skips without keras-hub."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from kerasseg.models.sam.weights import assign_tensors
from tests.models.sam.make_reference import (
    fill_keras_hub,
    keras_hub_embedding,
    keras_hub_layers,
    keras_hub_outputs,
    keras_hub_sam,
)
from tests.models.sam.sam_parts import (
    CHANNELS,
    DECODER,
    PROMPTS,
    VIT,
    VIT_B,
    images,
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


@pytest.mark.all_only  # ViT-B at 1024, twice: a minute and 8 GiB
@pytest.mark.parametrize("side", [1024, 448])
def test_vit_b_is_equal_to_keras_hub_s_with_any_prompt(side):
    """At the smaller side keras-hub's has weights that TensorFlow and NumPy have resized."""
    pytest.importorskip("keras_hub")
    tensors = meta_tensors(parts("vit_b", 1024), largest_sum=1.0)
    layers = parts("vit_b", side)
    assign_tensors(layers, tensors, "seeded")
    sam = keras_hub_sam(side, VIT_B, 256, {"heads": 8, "hidden": 2048}, 16)
    given = np.random.default_rng(5).normal(size=(2, side // 16, side // 16, 256))
    given = given.astype(np.float32)
    keras_hub_outputs("masks", sam, side, given)
    fill_keras_hub(keras_hub_layers(*sam), resized(tensors, side // 16))
    for kind in PROMPTS:
        expected = keras_hub_outputs(kind, sam, side, given)
        for a, b in zip(segment(layers, kind, given), expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)
        assert np.std(expected[1]) > 0.1
    slices = images(side)[:1]
    expected = keras_hub_embedding(sam[0], slices)
    np.testing.assert_allclose(layers["image_encoder"](slices), expected, atol=1e-4)
    assert expected.std() > 0.1


def resized(tensors, grid):
    """The tensors of ViT-B for `grid` x `grid` tokens."""
    found = dict(tensors)
    place = found["image_encoder.pos_embed"]
    found["image_encoder.pos_embed"] = tf.image.resize(place, (grid, grid)).numpy()
    for block, axis in itertools.product(VIT_B["global_blocks"], "hw"):
        name = f"image_encoder.blocks.{block}.attn.rel_pos_{axis}"
        old, new = len(tensors[name]), 2 * grid - 1
        centres = (np.arange(new) + 0.5) * old / new - 0.5
        columns = [np.interp(centres, np.arange(old), column) for column in tensors[name].T]
        found[name] = np.stack(columns, axis=1)
    return found
