"""The U-Net for volumes and for slices, and its parts that every U-Net shares.

Images may have any size: they are padded before the network and cropped after it, with `keras.ops`
whose shapes are known only when the network runs, so that it saves, reloads and exports as it is.
"""

from collections.abc import Sequence

import keras
from keras import ops

from kerasseg import anatomy
from kerasseg.config.model import ModelSettings
from kerasseg.models.blocks import (
    attention_gate,
    blocks,
    blocks_per_level,
    convolution_block,
    dropout,
    layers_for,
    upsampled,
)


def pad_to_stride(image: keras.KerasTensor, stride: int) -> keras.KerasTensor:
    """Pad (B, *spatial, C) with zeros at the end of each axis, to multiples of `stride`."""
    padded = ops.pad(image, ((0, 0), *[(0, stride - 1)] * (len(image.shape) - 2), (0, 0)))
    for axis in range(1, len(image.shape) - 1):
        ones = ops.repeat(_ones_along(image, axis, stride), stride)
        padded = ops.take(padded, _positions(ones), axis=axis)
    return padded


def crop_like(x: keras.KerasTensor, image: keras.KerasTensor, stride: int = 1) -> keras.KerasTensor:
    """Return the first ceil(spatial / stride) voxels of (B, *larger, K) along `image`'s axes."""
    for axis in range(1, len(image.shape) - 1):
        x = ops.take(x, _positions(_ones_along(image, axis, stride)), axis=axis)
    return x


def _ones_along(image: keras.KerasTensor, axis: int, stride: int) -> keras.KerasTensor:
    """Return ceil(length / stride) ones: the axis has no length as a number before the run."""
    line = tuple(slice(None) if i == axis else 0 for i in range(len(image.shape)))
    # float32 whatever the precision: float16 cannot count beyond 2048.
    ones = ops.reshape(ops.ones_like(image[line], dtype="float32"), (1, -1, 1))
    return ops.reshape(ops.max_pool(ones, stride, stride, padding="same"), (-1,))


def _positions(ones: keras.KerasTensor) -> keras.KerasTensor:
    """Return 0, 1, …, n - 1 for n ones."""
    return ops.cast(ops.cumsum(ones) - 1.0, "int32")


def decoder(
    x: keras.KerasTensor,
    skips: Sequence[keras.KerasTensor | None],
    features: Sequence[int],
    settings: ModelSettings,
) -> keras.KerasTensor:
    """Add the decoder: bottleneck (B, *spatial, C) -> features (B, *spatial 2^levels, C).

    `skips` and `features` begin at full resolution; a level without a skip (None) has only what
    comes from below. Every level ends in a layer `decoder_<level>`, 1 being full resolution.
    """
    counts = blocks_per_level(settings.decoder_blocks, len(features))
    for level in range(len(features), 0, -1):
        channels, skip, name = features[level - 1], skips[level - 1], f"decoder_{level}"
        if skip is not None and settings.attention_gates:
            skip = attention_gate(skip, x, name)
        x = upsampled(x, settings, channels, name)
        if skip is not None:
            x = keras.layers.Concatenate(name=f"{name}_concatenate")([skip, x])
        residual = settings.residual == "both"
        x = blocks(x, settings, channels, counts[level - 1], name, residual=residual)
        x = dropout(x, settings, "decoder", name)
        x = keras.layers.Identity(name=name)(x)
    return x


def with_output(
    image: keras.KerasTensor, x: keras.KerasTensor, settings: ModelSettings, name: str
) -> keras.Model:
    """Return the network from `image` to the probabilities of `model.target`, of its size.

    `x` (B, *padded, C) are the features of full resolution. Logits and probabilities (B, *spatial,
    K) are float32 whatever the precision.
    """
    channels = len(anatomy.TARGETS[settings.target])
    x = layers_for(x).convolution(channels, 1, name="head")(x)
    x = crop_like(x, image)
    logits = keras.layers.Activation("linear", dtype="float32", name="logits")(x)
    probabilities = keras.layers.Activation(
        anatomy.ACTIVATIONS[settings.target], dtype="float32", name="probabilities"
    )(logits)
    return keras.Model(image, probabilities, name=name)


def supervision_logits(
    network: keras.Model, count: int, output_channels: int
) -> list[keras.KerasTensor]:
    """Return the logits of new heads on the decoder's levels 2, 3, … of `network`.

    The one of level i + 1 is (B, *ceil(spatial / 2^i), K) float32: voxel j of an axis stands where
    the image's voxel j 2^i is. Lee et al. 2015 (arXiv:1409.5185), as in nnU-Net. `network` itself
    stays as it is.
    """
    image, policy = network.inputs[0], network.get_layer("head").dtype_policy
    logits = []
    for level in range(2, count + 2):
        x = network.get_layer(f"decoder_{level}").output
        head = layers_for(x).convolution(output_channels, 1, dtype=policy, name=f"head_{level}")
        x = crop_like(head(x), image, stride=2 ** (level - 1))
        logits.append(keras.layers.Activation("linear", dtype="float32", name=f"logits_{level}")(x))
    return logits


def encoder_layers(network: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers up to and including `bottleneck`, in the order in which they run.

    The input and the padding are among them; they have no weights.
    """
    bottleneck = network.get_layer("bottleneck").output
    return list(keras.Model(network.inputs, bottleneck).layers)


def unet(settings: ModelSettings, input_channels: int) -> keras.Model:
    """Return a U-Net: image (B, D, H, W, C) -> probabilities (B, D, H, W, K) float32.

    With `model.dimensions` 2 the same network for slices, (B, H, W, C) -> (B, H, W, K). Ronneberger
    et al. 2015 (arXiv:1505.04597) and Cicek et al. 2016 (arXiv:1606.06650), by default with
    instance norm and leaky ReLU as in nnU-Net (Isensee et al. 2021); with `model.residual` encoder
    nnU-Net's residual encoder (Isensee et al. 2024, arXiv:2404.09556). D, H and W may be anything.
    """
    image = keras.Input((*[None] * settings.dimensions, input_channels), name="image")
    x = pad_to_stride(image, settings.stride)
    residual = settings.residual != "none"
    if residual:
        x = convolution_block(x, settings, settings.features[0], "encoder_stem")
    counts = blocks_per_level(settings.encoder_blocks, len(settings.features) + 1)
    skips = []
    for level, channels in enumerate(settings.features, start=1):
        name = f"encoder_{level}"
        stride = 2 if level > 1 and settings.downsampling == "strided" else 1
        x = blocks(x, settings, channels, counts[level - 1], name, residual=residual, stride=stride)
        x = dropout(x, settings, "encoder", name)
        skips.append(x)
        if settings.downsampling == "maxpool":
            x = layers_for(x).max_pooling(2, name=f"{name}_pool")(x)
    stride = 2 if settings.downsampling == "strided" else 1
    x = blocks(
        x, settings, settings.bottleneck, counts[-1], "bottleneck", residual=residual, stride=stride
    )
    x = dropout(x, settings, "bottleneck", "bottleneck")
    x = keras.layers.Identity(name="bottleneck")(x)
    x = decoder(x, skips, settings.features, settings)
    return with_output(image, x, settings, f"unet_{settings.dimensions}d")
