"""The network `sam`: slices of any size through SAM to the probabilities of `model.target`."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import keras
import numpy as np
from keras import ops

from kerasseg import anatomy
from kerasseg.config.model import SAM_SIDES, ModelSettings, SamSettings
from kerasseg.errors import UserError
from kerasseg.models.sam.decoder import MASKS, MaskDecoder
from kerasseg.models.sam.prompts import PromptEncoder
from kerasseg.models.sam.tiny_vit import TinyVit
from kerasseg.models.sam.vit import VisionTransformer
from kerasseg.models.sam.weights import load_sam_weights


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
    user. With one output channel that is SAM's mask for a clear prompt; with three they are its
    masks of a whole, a part and a part of that.

    The image encoder follows the current dtype policy, the rest computes in float32. The prompt
    encoder is frozen, and the image encoder but for `model.sam.lora_rank` and `trained_blocks`.

    Raises:
        UserError: `input_channels` is neither 1 nor 3, or the weights cannot be had.
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
    image = keras.Input((None, None, input_channels), name="image")
    square = ToSquare(side, dtype="float32", name="square")(image)
    encoder = sizes.encoder(side, channels=sizes.channels, **options, name="image_encoder")
    embedding = keras.layers.Identity(name="bottleneck")(encoder(square))
    grid = embedding.shape[1]
    channels: dict[str, Any] = {"channels": sizes.channels, "dtype": "float32"}
    layers = {
        layer.name: layer
        for layer in (
            WholeImage(side, dtype="float32", name="whole_image"),
            PromptEncoder(side, grid, **channels, name="prompt_encoder"),
            MaskDecoder(**channels, **sizes.decoder, name="mask_decoder"),
            ToSlice(side, dtype="float32", name="head"),
            keras.layers.Activation("linear", dtype="float32", name="logits"),
            keras.layers.Activation(
                anatomy.ACTIVATIONS[settings.target], dtype="float32", name="probabilities"
            ),
        )
    }
    probabilities = _segment(layers, embedding, image, settings.target)
    network = keras.Model(image, probabilities, name=f"sam_{own.encoder}")
    if own.weights != "none":
        load_sam_weights(network, own.weights, own.encoder, own.pixels)
    _freeze(encoder, own)
    network.get_layer("prompt_encoder").trainable = False
    decoder, used = network.get_layer("mask_decoder"), _masks_of(settings.target)
    decoder.iou_head.trainable = False
    for mask, head in enumerate(decoder.mask_heads):
        head.trainable = mask in range(MASKS)[used]
    return network


def after_encoder(network: keras.Model, target: str, size: Sequence[int]) -> keras.Model:
    """Return the part of a SAM behind its encoder: embedding (B, n, n, C) -> probabilities.

    It shares the weights of `network`. The masks have the `size` (h, w) of the slices.
    """
    # Those without weights are made anew: a layer that was called twice has no single output.
    layers = {
        layer.name: layer if layer.weights else type(layer).from_config(layer.get_config())
        for layer in network.layers
        if layer.name in ("whole_image", "prompt_encoder", "mask_decoder", *_OUTPUTS)
    }
    embedding = keras.Input(network.get_layer("bottleneck").output.shape[1:], name="embedding")
    # Only the shape of a slice counts: it says what the masks are scaled to.
    slices = ops.tile(ops.zeros_like(embedding[:, :1, :1, :1]), (1, *size, 1))
    return keras.Model(embedding, _segment(layers, embedding, slices, target), name=network.name)


def _segment(
    layers: Mapping[str, keras.layers.Layer],
    embedding: keras.KerasTensor,
    image: keras.KerasTensor,
    target: str,
) -> keras.KerasTensor:
    """Return the probabilities (B, H, W, K) of an embedding, with the size of the image."""
    prompts = layers["prompt_encoder"](embedding, boxes=layers["whole_image"](embedding))
    masks, _ = layers["mask_decoder"](embedding, *prompts)
    masks = masks[..., _masks_of(target)]
    return layers["probabilities"](layers["logits"](layers["head"]([masks, image])))


_OUTPUTS: Final = ("head", "logits", "probabilities")


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
class ToSquare(keras.layers.Layer):
    """Scales slices (B, H, W, C) to squares (B, S, S, 3), whose end is black where they are not.

    The longer side gets S pixels. Where that is smaller, pixels are averaged, as Pillow's bilinear
    interpolation does. A single channel is repeated.
    """

    def __init__(self, side: int, **options: Any) -> None:
        super().__init__(**options)
        self.side = side

    def call(self, image: Any) -> Any:
        for axis, (size, used) in enumerate(_used(image, self.side), start=1):
            matrix = interpolation(self.side, size, size / used, outputs=used)
            image = ops.moveaxis(ops.tensordot(matrix, image, axes=[[1], [axis]]), 0, axis)
        return ops.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], self.side, self.side, 3)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "side": self.side}


@keras.saving.register_keras_serializable(package="kerasseg")
class ToSlice(keras.layers.Layer):
    """Scales masks (B, m, m, K) of squares of side S back to those of slices: (B, H, W, K).

    It is called with the masks and the slices (B, H, W, C), and undoes `ToSquare`.
    """

    def __init__(self, side: int, **options: Any) -> None:
        super().__init__(**options)
        self.side = side

    def call(self, inputs: Any) -> Any:
        masks, image = inputs
        grid = masks.shape[1]
        for axis, (size, used) in enumerate(_used(image, self.side), start=1):
            inside = used * (grid / self.side)
            matrix = interpolation(size, grid, inside / size, inputs=inside)
            masks = ops.moveaxis(ops.tensordot(matrix, masks, axes=[[1], [axis]]), 0, axis)
        return masks

    def compute_output_shape(self, input_shape: Any) -> Any:
        masks, image = input_shape
        return (masks[0], image[1], image[2], masks[3])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "side": self.side}


@keras.saving.register_keras_serializable(package="kerasseg")
class WholeImage(keras.layers.Layer):
    """Gives the box (B, 1, 4) of the whole square for each embedding (B, n, n, C)."""

    def __init__(self, side: int, **options: Any) -> None:
        super().__init__(**options)
        self.side = side

    def call(self, embedding: Any) -> Any:
        corners = np.array([0, 0, self.side - 1, self.side - 1], np.float32)
        return ops.zeros_like(embedding[:, :1, 0, :4]) + corners

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], 1, 4)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "side": self.side}


def _used(image: Any, side: int) -> list[tuple[Any, Any]]:
    """Return the size of a slice, and what it has in a square of `side`, along both axes."""
    sizes = [ops.cast(size, "float32") for size in ops.shape(image)[1:3]]
    longest = ops.maximum(*sizes)
    return [(size, ops.maximum(ops.floor(size * side / longest + 0.5), 1.0)) for size in sizes]


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
