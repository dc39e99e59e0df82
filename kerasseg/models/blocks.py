"""What the levels of a network are made of: plain and residual blocks, dropout.

Every function takes a tensor (B, *spatial, C) of a slice or of a volume and returns the next one.
"""

from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import keras

from kerasseg.settings.model import ModelSettings

_EPSILON = 1e-5
_BATCH_NORM_MOMENTUM = 0.9
"""Keras's 0.99 needs hundreds of steps until validation sees the statistics of the data."""


class DimensionLayers(NamedTuple):
    """The layers that differ between slices and volumes."""

    convolution: Any
    up_convolution: Any
    max_pooling: Any
    average_pooling: Any


_LAYERS = MappingProxyType(
    {
        2: DimensionLayers(
            keras.layers.Conv2D,
            keras.layers.Conv2DTranspose,
            keras.layers.MaxPooling2D,
            keras.layers.AveragePooling2D,
        ),
        3: DimensionLayers(
            keras.layers.Conv3D,
            keras.layers.Conv3DTranspose,
            keras.layers.MaxPooling3D,
            keras.layers.AveragePooling3D,
        ),
    }
)


def layers_for(x: keras.KerasTensor) -> DimensionLayers:
    """The layers for a tensor of slices (B, H, W, C) or of volumes (B, D, H, W, C)."""
    return _LAYERS[len(x.shape) - 2]


def blocks(
    x: keras.KerasTensor,
    settings: ModelSettings,
    channels: int,
    count: int,
    name: str,
    *,
    residual: bool,
    stride: int = 1,
) -> keras.KerasTensor:
    """One level: `count` convolutions, or residual blocks of two; the first has the stride."""
    for index in range(1, count + 1):
        step = stride if index == 1 else 1
        if residual:
            x = _residual_block(x, settings, channels, f"{name}_block_{index}", step)
        else:
            x = convolution_block(x, settings, channels, name, f"_{index}", step)
    return x


def convolution_block(
    x: keras.KerasTensor,
    settings: ModelSettings,
    channels: int,
    name: str,
    suffix: str = "",
    stride: int = 1,
) -> keras.KerasTensor:
    """Convolution, normalisation, activation."""
    x = _convolution(x, settings, channels, f"{name}_conv{suffix}", stride)
    x = _normalised(x, settings, f"{name}_norm{suffix}")
    return _activated(x, settings, f"{name}_activation{suffix}")


def dropout(
    x: keras.KerasTensor,
    settings: ModelSettings,
    part: Literal["encoder", "bottleneck", "decoder"],
    name: str,
) -> keras.KerasTensor:
    """The dropout after a level of that part of the network, if `model.dropout` wants one there."""
    places = {
        "bottleneck": ("bottleneck",),
        "encoder": ("encoder", "bottleneck"),
        "decoder": ("decoder",),
        "everywhere": ("encoder", "bottleneck", "decoder"),
    }[settings.dropout.place]
    if settings.dropout.rate == 0 or part not in places:
        return x
    return keras.layers.Dropout(settings.dropout.rate, name=f"{name}_dropout")(x)


def blocks_per_level(number: int | tuple[int, ...], levels: int) -> tuple[int, ...]:
    """`model.encoder_blocks` or `model.decoder_blocks` as one number for each level."""
    return (number,) * levels if isinstance(number, int) else number


def _residual_block(
    x: keras.KerasTensor, settings: ModelSettings, channels: int, name: str, stride: int
) -> keras.KerasTensor:
    """ResNet-D's block as in nnU-Net's residual encoder (He et al. 2019, arXiv:1812.01187).

    The skip is pooled where the block has a stride, and projected where the channels change.
    """
    skip = x
    if stride > 1:
        skip = layers_for(x).average_pooling(stride, name=f"{name}_skip_pool")(skip)
    if x.shape[-1] != channels:
        skip = layers_for(x).convolution(
            channels,
            1,
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"{name}_skip_conv",
        )(skip)
        skip = _normalised(skip, settings, f"{name}_skip_norm")
    x = convolution_block(x, settings, channels, name, "_1", stride)
    x = _convolution(x, settings, channels, f"{name}_conv_2")
    x = _normalised(x, settings, f"{name}_norm_2")
    x = keras.layers.Add(name=f"{name}_add")([x, skip])
    return _activated(x, settings, f"{name}_activation_2")


def _convolution(
    x: keras.KerasTensor, settings: ModelSettings, channels: int, name: str, stride: int = 1
) -> keras.KerasTensor:
    return layers_for(x).convolution(
        channels,
        settings.kernel,
        strides=stride,
        padding="same",
        kernel_initializer="he_normal",
        name=name,
    )(x)


def _normalised(x: keras.KerasTensor, settings: ModelSettings, name: str) -> keras.KerasTensor:
    if settings.norm == "none":
        return x
    if settings.norm == "batch":
        return keras.layers.BatchNormalization(
            momentum=_BATCH_NORM_MOMENTUM, epsilon=_EPSILON, name=name
        )(x)
    groups = settings.norm_groups if settings.norm == "group" else -1  # -1: one for each channel
    return keras.layers.GroupNormalization(groups=groups, epsilon=_EPSILON, name=name)(x)


def _activated(x: keras.KerasTensor, settings: ModelSettings, name: str) -> keras.KerasTensor:
    if settings.activation == "leaky_relu":
        return keras.layers.LeakyReLU(settings.negative_slope, name=name)(x)
    return keras.layers.Activation(settings.activation, name=name)(x)
