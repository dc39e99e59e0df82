"""SAM's encoders and decoder: their sizes, their truth, and the weights of others."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from kerasseg.errors import UserError
from kerasseg.models.sam.decoder import MaskDecoder
from kerasseg.models.sam.prompts import PromptEncoder
from kerasseg.models.sam.tiny_vit import TinyVit
from kerasseg.models.sam.vit import VisionTransformer
from kerasseg.models.sam.weights import assign_tensors, named_weights
from kerasseg.private_hooks import weights_without_values
from tests.models.sam.sam_parts import PROMPTS, meta_tensors, parts, segment

REFERENCE = Path(__file__).with_name("reference.json")
"""Values of keras-hub's SAM and of LiteMedSAM's own code (`make_reference.py`)."""


@pytest.fixture(scope="module")
def vit():
    layers = parts("vit")
    assign_tensors(layers, meta_tensors(layers), "seeded")
    return layers


@pytest.fixture(scope="module")
def tiny_vit():
    layers = parts("tiny_vit")
    assign_tensors(layers, meta_tensors(layers), "seeded")
    return layers


def test_counts_are_those_of_meta_and_of_litemedsam():
    def counts(encoder, side):
        with weights_without_values():
            embedding = encoder(keras.Input((side, side, 3)))
            prompts = PromptEncoder(side, encoder.grid)
            decoder = MaskDecoder()
            decoder(embedding, *prompts(embedding))
        return [layer.count_params() for layer in (encoder, prompts, decoder)]

    vit = counts(VisionTransformer(1024), 1024)
    assert vit[1:] == [6_476, 4_058_340] and sum(vit) == 93_735_728
    tiny = counts(TinyVit(256), 256)
    # LiteMedSAM's file has 9,801,439 values, a count of batches for each of the 27 norms among them
    assert tiny[1:] == [6_476, 4_058_340] and sum(tiny) + 27 == 9_801_439


@pytest.mark.parametrize("kind", PROMPTS)
def test_vit_prompts_and_decoder_give_the_values_of_keras_hub(vit, kind):
    check_reference(segment(vit, kind), f"vit_{kind}")


@pytest.mark.parametrize("kind", PROMPTS)
def test_tiny_vit_prompts_and_decoder_give_the_values_of_litemedsam(tiny_vit, kind):
    check_reference(segment(tiny_vit, kind), f"tiny_vit_{kind}")


def check_reference(found, name):
    expected = json.loads(REFERENCE.read_text())[name]
    for values, reference in zip(found, expected, strict=True):
        every = values.ravel()[:: reference["step"]]
        np.testing.assert_allclose(every, reference["values"], atol=1e-4, rtol=1e-4)
        assert values.std() > 0.01


@pytest.mark.parametrize(
    "kind",
    # test_sam_network saves a whole network with a ViT.
    [pytest.param("vit", marks=pytest.mark.all_only), "tiny_vit"],
)
def test_saved_and_loaded_again_it_is_the_same(kind, tmp_path, request):
    layers = request.getfixturevalue(kind)
    image = keras.Input((64, 64, 3))
    embedding = layers["image_encoder"](image)
    masks, iou = layers["mask_decoder"](embedding, *layers["prompt_encoder"](embedding))
    network = keras.Model(image, [masks, iou])
    network.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    given = np.random.default_rng(0).random((1, 64, 64, 3)).astype(np.float32)
    for a, b in zip(network(given), loaded(given), strict=True):
        np.testing.assert_array_equal(a, b)


def test_only_what_depends_on_the_side_is_interpolated(vit):
    tensors = meta_tensors(vit)
    larger = parts("vit", side=96)
    assign_tensors(larger, tensors, "seeded")
    weights = dict(named_weights(larger))
    changed = [n for n, w in weights.items() if len(w.shape) in (2, 4) and "rel_pos" in n]
    sizes = {n: weights[n].shape[0] for n in changed}
    assert {n: s for n, s in sizes.items() if s != tensors[n].shape[0]} == {
        "image_encoder.blocks.1.attn.rel_pos_h": 11,
        "image_encoder.blocks.1.attn.rel_pos_w": 11,
    }
    place = np.asarray(weights["image_encoder.pos_embed"])
    assert place.shape == (1, 6, 6, 24)
    # The middle of 4 x 4 values and that of 6 x 6 are the same mean of the four innermost.
    old = tensors["image_encoder.pos_embed"][0, 1:3, 1:3].mean((0, 1))
    np.testing.assert_allclose(place[0, 2:4, 2:4].mean((0, 1)), old, atol=1e-6)


def test_tensors_of_another_network_are_refused_before_anything_is_assigned(vit):
    tensors = meta_tensors(vit)
    before = np.asarray(vit["mask_decoder"].iou_token)
    missing = {n: t + 1 for n, t in tensors.items() if n != "prompt_encoder.no_mask_embed.weight"}
    with pytest.raises(UserError, match=r"1 tensors are missing, the first prompt_encoder.no_mask"):
        assign_tensors(vit, missing, "a.pth", "vit_b")
    with pytest.raises(UserError, match=r"1 are left over.*vit_b takes Meta's sam_vit_b_01ec64"):
        assign_tensors(vit, {**tensors, "head.weight": np.zeros(3)}, "a.pth", "vit_b")
    other = meta_tensors(parts("tiny_vit"))
    with pytest.raises(UserError, match="looks like a file of tiny_vit, and vit_b takes Meta's"):
        assign_tensors(vit, other, "a.pth", "vit_b")
    wrong = {**tensors, "mask_decoder.iou_token.weight": np.zeros((1, 5))}
    with pytest.raises(UserError, match=r"1 do not fit, the first: mask_decoder.iou_token.weight"):
        assign_tensors(vit, wrong, "a.pth", "vit_b")
    np.testing.assert_array_equal(before, vit["mask_decoder"].iou_token)
