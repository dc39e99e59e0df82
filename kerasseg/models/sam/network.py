"""The network `sam`: slices of any size through SAM to the probabilities of `model.target`."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import keras
import numpy as np
from keras import ops

from kerasseg import anatomy
from kerasseg.config.model import SAM_SIDES, ModelSettings, SamSettings
from kerasseg.errors import UserError
from kerasseg.models.sam.decoder import MASKS, MaskDecoder
from kerasseg.models.sam.prompts import (
    BoxOfMask,
    OfSquare,
    PointsOfMask,
    PromptEncoder,
    WherePrompted,
    used_in_square,
)
from kerasseg.models.sam.tiny_vit import TinyVit
from kerasseg.models.sam.vit import VisionTransformer
from kerasseg.models.sam.weights import COMPONENTS, load_sam_weights


class _Sizes(NamedTuple):
    """An image encoder with its options, and the options of the mask decoder behind it."""

    encoder: type[keras.layers.Layer]
    options: dict[str, Any]
    channels: int = 256
    decoder: MappingProxyType[str, Any] = MappingProxyType({})


_SIZES: Final = MappingProxyType(
    {
        "tiny_vit": _Sizes(TinyVit, {}),
        "vit_b": _Sizes(VisionTransformer, {}),
        "vit_xs": _Sizes(
            VisionTransformer,
            {"width": 48, "depth": 3, "heads": 3, "global_blocks": (2,), "window": 2},
            32,
            MappingProxyType({"heads": 2, "hidden": 64}),
        ),
    }
)
"""Encoder of `model.sam.encoder` -> its sizes."""


def sam(settings: ModelSettings, input_channels: int) -> keras.Model:
    """Return SAM for slices: image (B, H, W, C) -> probabilities (B, H, W, K) float32.

    Kirillov et al. 2023 (arXiv:2304.02643). A slice with values in [0, 1] is scaled so that its
    longer side has `model.sam.side` pixels, and padded with black to a square; the masks are scaled
    back to its own size. The prompt is the whole square as a box, so that nothing is asked of the
    user; with `model.sam.prompt` a second input is the mask (B, H, W, 1) that it is made of. With
    one output channel that is SAM's mask for a clear prompt; with three they are its masks of a
    whole, a part and a part of that.

    The image encoder follows the current dtype policy, the rest computes in float32. The prompt
    encoder is frozen, and the image encoder but for `model.sam.lora_rank` and `trained_blocks`.
    Raises `UserError` if `input_channels` is neither 1 nor 3, or the weights cannot be had.
    """
    own = settings.sam
    if input_channels not in (1, 3):
        raise UserError(
            f"model.network=sam takes pictures of one channel, or of three as red, green and blue, "
            f"but the input has {input_channels}: choose one or three in data.modalities, with "
            "pipeline.slices.neighbours=0."
        )
    side, sizes = own.side or SAM_SIDES[own.encoder], _SIZES[own.encoder]
    options = dict(sizes.options)
    if own.lora_rank:
        options["lora_rank"] = own.lora_rank
    encoder = sizes.encoder(side, channels=sizes.channels, **options, name="image_encoder")
    channels: dict[str, Any] = {"channels": sizes.channels, "dtype": "float32"}
    prompts = PromptEncoder(side, encoder.grid, **channels, name="prompt_encoder")
    decoder = MaskDecoder(**channels, **sizes.decoder, name="mask_decoder")
    network = _connect([encoder, prompts, decoder], settings, input_channels)
    if own.weights != "none":
        random = encoder.get_weights()
        load_sam_weights(network, own.weights, own.encoder, own.pixels)
        if own.random_encoder:
            encoder.set_weights(random)
    _freeze(encoder, own)
    prompts.trainable = False
    used = _masks_of(settings.target)
    decoder.iou_head.trainable = own.iou_weight > 0
    for mask, head in enumerate(decoder.mask_heads):
        head.trainable = mask in range(MASKS)[used]
    return network


def after_encoder(
    network: keras.Model, settings: ModelSettings, size: Sequence[int]
) -> keras.Model:
    """Return the part of a SAM behind its encoder: embedding (B, n, n, C) -> probabilities.

    It shares the weights of `network`. The masks have the `size` (h, w) of the slices.
    """
    embedding = keras.Input(network.get_layer("bottleneck").output.shape[1:], name="embedding")
    # Only the shape of a slice counts: it says what the masks are scaled to.
    slices = ops.tile(ops.zeros_like(embedding[:, :1, :1, :1]), (1, *size, 1))
    parts = [network.get_layer(name) for name in COMPONENTS[1:]]
    return _decode(parts, settings, embedding, embedding, slices, network.name)


def with_prompt(network: keras.Model, settings: ModelSettings) -> keras.Model:
    """Return a SAM with the weights of `network` and the prompt of the settings.

    With a prompt it has a second input, the mask (B, H, W, 1) that boxes or points are made of.
    """
    if settings.sam.prompt == "none" and len(network.inputs) == 1:
        return network
    parts = [network.get_layer(name) for name in COMPONENTS]
    return _connect(parts, settings, network.inputs[0].shape[-1])


def _connect(
    parts: Sequence[keras.layers.Layer], settings: ModelSettings, input_channels: int
) -> keras.Model:
    """Return the network of image encoder, prompt encoder and mask decoder."""
    encoder, prompts, _ = parts
    image = keras.Input((None, None, input_channels), name="image")
    square = ToSquare(prompts.side, dtype="float32", name="square")(image)
    # Layers without weights are made anew: one that was called twice has no single output.
    embedding = keras.layers.Identity(name="bottleneck")(encoder(square))
    name = f"sam_{settings.sam.encoder}"
    return _decode(parts[1:], settings, image, embedding, image, name)


def _decode(
    parts: Sequence[keras.layers.Layer],
    settings: ModelSettings,
    source: keras.KerasTensor,
    embedding: keras.KerasTensor,
    image: keras.KerasTensor,
    name: str,
) -> keras.Model:
    """Return the network from its input `source` to the probabilities of an embedding.

    They have the size of the image.
    """
    encoder, decoder = parts
    own, side, options = settings.sam, encoder.side, {"dtype": "float32"}
    inputs, mask = [source], keras.Input((None, None, 1), name="prompt")
    if own.prompt == "none":
        given = {"boxes": WholeImage(side, name="whole_image", **options)(embedding)}
    else:
        inputs.append(mask)
        if own.prompt == "box":
            given = {"boxes": BoxOfMask(side, own.box_margin, name="box", **options)(mask)}
        else:
            points = PointsOfMask(side, own.points, name="points", **options)(mask)
            given = dict(zip(("points", "labels"), points, strict=True))
    found = decoder(embedding, *encoder(embedding, **given))
    used = tuple(part[..., _masks_of(settings.target)] for part in found)
    masks, _ = keras.layers.Identity(name="masks", **options)(used)
    x = ToSlice(side, name="head", **options)([masks, image])
    if own.prompt != "none":
        x = WherePrompted(name="where_prompted", **options)([x, mask])
    x = keras.layers.Activation("linear", name="logits", **options)(x)
    activation = anatomy.ACTIVATIONS[settings.target]
    x = keras.layers.Activation(activation, name="probabilities", **options)(x)
    return keras.Model(inputs if len(inputs) > 1 else source, x, name=name)


def _masks_of(target: str) -> slice:
    """Return which of SAM's masks stand for the channels of a target."""
    channels = len(anatomy.TARGETS[target])
    return slice(0, 1) if channels == 1 else slice(MASKS - channels, MASKS)


def _freeze(encoder: Any, settings: SamSettings) -> None:
    """Train LoRA's matrices and the last blocks with the neck of the encoder, nothing else."""
    last = [*encoder.blocks[len(encoder.blocks) - settings.trained_blocks :], encoder.neck]
    trained = {id(weight) for layer in last if settings.trained_blocks for weight in layer.weights}
    for weight in encoder.trainable_weights:
        weight.trainable = id(weight) in trained or "lora_kernel" in weight.path
    if not encoder.trainable_weights:
        encoder.trainable = False


@keras.saving.register_keras_serializable(package="kerasseg")
class ToSquare(OfSquare):
    """Scales slices (B, H, W, C) to squares (B, S, S, 3), whose end is black where they are not.

    The longer side gets S pixels. Where that is smaller, pixels are averaged, as Pillow's bilinear
    interpolation does. A single channel is repeated.
    """

    def call(self, image: Any) -> Any:
        for axis, (size, used) in enumerate(used_in_square(image, self.side), start=1):
            matrix = interpolation(self.side, size, size / used, outputs=used)
            image = ops.moveaxis(ops.tensordot(matrix, image, axes=[[1], [axis]]), 0, axis)
        return ops.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], self.side, self.side, 3)


@keras.saving.register_keras_serializable(package="kerasseg")
class ToSlice(OfSquare):
    """Scales masks (B, m, m, K) of squares of side S back to those of slices: (B, H, W, K).

    It is called with the masks and the slices (B, H, W, C), and undoes `ToSquare`.
    """

    def call(self, inputs: Any) -> Any:
        masks, image = inputs
        grid = masks.shape[1]
        for axis, (size, used) in enumerate(used_in_square(image, self.side), start=1):
            inside = used * (grid / self.side)
            matrix = interpolation(size, grid, inside / size, inputs=inside)
            masks = ops.moveaxis(ops.tensordot(matrix, masks, axes=[[1], [axis]]), 0, axis)
        return masks

    def compute_output_shape(self, input_shape: Any) -> Any:
        masks, image = input_shape
        return (masks[0], image[1], image[2], masks[3])


@keras.saving.register_keras_serializable(package="kerasseg")
class WholeImage(OfSquare):
    """Gives the box (B, 1, 4) of the whole square for each embedding (B, n, n, C)."""

    def call(self, embedding: Any) -> Any:
        corners = np.array([0, 0, self.side - 1, self.side - 1], np.float32)
        return ops.zeros_like(embedding[:, :1, 0, :4]) + corners

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], 1, 4)


def interpolation(
    length: Any, of: Any, step: Any, *, outputs: Any = None, inputs: Any = None
) -> Any:
    """Return the matrix (length, of) that interpolates linearly along an axis.

    Centres are at half-integers and values repeat beyond the ends. With steps above 1 each output
    is the weighted mean over twice a step.

    Args:
        length: Outputs.
        of: Inputs.
        step: Inputs per output.
        outputs: Outputs from this one on are 0.
        inputs: Inputs from this one on do not count.
    """
    count, others = (ops.arange(ops.cast(n, "int32"), dtype="int32") for n in (length, of))
    count, others = ops.cast(count, "float32"), ops.cast(others, "float32")
    centre = (count + 0.5) * step - 0.5
    distance = ops.abs(ops.expand_dims(centre, 1) - ops.expand_dims(others, 0))
    weights = ops.relu(1.0 - distance / ops.maximum(step, 1.0))
    if outputs is not None:
        weights = ops.where(ops.expand_dims(count < outputs, 1), weights, 0.0)
    if inputs is not None:
        weights = ops.where(ops.expand_dims(others < inputs, 0), weights, 0.0)
    return weights / ops.maximum(ops.sum(weights, axis=1, keepdims=True), 1e-6)
