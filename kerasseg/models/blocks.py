"""The parts of a network's levels: convolution and residual blocks, upsampling, attention gates.

Every function takes a tensor (B, *spatial, C) of a slice or of a volume and returns the next one.
"""

from typing import Any, Literal, NamedTuple

import keras
from keras import ops

from kerasseg.config.model import ModelSettings

_EPSILON = 1e-5
BATCH_NORM_MOMENTUM = 0.9
"""Every network has it, whoever designed it: Keras's 0.99 needs hundreds of steps until validation
sees the statistics of the data, and the 0.999 of MobileNetV2 thousands."""


class DimensionLayers(NamedTuple):
    """The layers that differ between slices and volumes."""

    convolution: Any
    up_convolution: Any
    max_pooling: Any
    average_pooling: Any


def layers_for(x: keras.KerasTensor) -> DimensionLayers:
    """Return the layers for a tensor of slices (B, H, W, C) or of volumes (B, D, H, W, C)."""
    n = len(x.shape) - 2
    names = (f"Conv{n}D", f"Conv{n}DTranspose", f"MaxPooling{n}D", f"AveragePooling{n}D")
    return DimensionLayers(*(getattr(keras.layers, name) for name in names))


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
    """Add a level of `count` convolutions, or residual blocks of two; the first has the stride."""
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
    """Add a convolution, its normalisation and its activation."""
    x = _convolution(x, settings, channels, f"{name}_conv{suffix}", stride)
    x = _normalised(x, settings, f"{name}_norm{suffix}")
    return _activated(x, settings, f"{name}_activation{suffix}")


def dropout(
    x: keras.KerasTensor,
    settings: ModelSettings,
    part: Literal["encoder", "bottleneck", "decoder"],
    name: str,
) -> keras.KerasTensor:
    """Add dropout after a level of that part of the network, if `model.dropout` asks for it."""
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
    """Return `model.encoder_blocks` or `model.decoder_blocks` as one number for each level."""
    return (number,) * levels if isinstance(number, int) else number


def _residual_block(
    x: keras.KerasTensor, settings: ModelSettings, channels: int, name: str, stride: int
) -> keras.KerasTensor:
    """Add ResNet-D's block as in nnU-Net's residual encoder (He et al. 2019, arXiv:1812.01187).

    The skip is pooled where the block has a stride, and projected where the channels change.
    """
    skip = x
    if stride > 1:
        skip = layers_for(x).average_pooling(stride, name=f"{name}_skip_pool")(skip)
    if x.shape[-1] != channels:
        skip = layers_for(x).convolution(
            channels, 1, use_bias=False, kernel_initializer="he_normal", name=f"{name}_skip_conv"
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
            momentum=BATCH_NORM_MOMENTUM, epsilon=_EPSILON, name=name
        )(x)
    groups = settings.norm_groups if settings.norm == "group" else -1  # -1: one for each channel
    return keras.layers.GroupNormalization(groups=groups, epsilon=_EPSILON, name=name)(x)


def _activated(x: keras.KerasTensor, settings: ModelSettings, name: str) -> keras.KerasTensor:
    if settings.activation == "leaky_relu":
        return keras.layers.LeakyReLU(settings.negative_slope, name=name)(x)
    return keras.layers.Activation(settings.activation, name=name)(x)


def upsampled(
    x: keras.KerasTensor, settings: ModelSettings, channels: int, name: str
) -> keras.KerasTensor:
    """Double the resolution: (B, *spatial, C) -> (B, *2 spatial, channels).

    `interpolate` is followed by a convolution of size 2, the "up-convolution" of Ronneberger et al.
    2015; a transposed convolution has the same kernel, so both have the same parameters.
    """
    if settings.upsampling == "transpose":
        return layers_for(x).up_convolution(channels, 2, strides=2, name=f"{name}_up")(x)
    x = interpolated(x)
    return layers_for(x).convolution(channels, 2, padding="same", name=f"{name}_up")(x)


def interpolated(x: keras.KerasTensor) -> keras.KerasTensor:
    """Interpolate linearly along each axis: (B, *spatial, C) -> (B, *2 spatial, C).

    Centres of voxels are at half-integers and edges are repeated, as in PyTorch's
    `interpolate(scale_factor=2, align_corners=False)`.
    """
    # keras.layers.UpSampling3D has no trilinear interpolation, and the bilinear one of UpSampling2D
    # cannot be traced for sizes that are not known. Along one axis, linear interpolation to twice
    # the resolution is each voxel twice, then the mean of three neighbours with the weights 1/4,
    # 1/2, 1/4. As it is linear, nothing of it is kept for the backward pass.
    for axis in range(1, len(x.shape) - 1):
        x = ops.repeat(x, 2, axis=axis)
        before = ops.concatenate([_along(x, axis, 0, 1), _along(x, axis, 0, -1)], axis=axis)
        after = ops.concatenate([_along(x, axis, 1, None), _along(x, axis, -1, None)], axis=axis)
        x = 0.5 * x + 0.25 * (before + after)
    return x


def _along(x: keras.KerasTensor, axis: int, start: int, stop: int | None) -> keras.KerasTensor:
    return x[(*[slice(None)] * axis, slice(start, stop))]


def attention_gate(
    skip: keras.KerasTensor, gate: keras.KerasTensor, name: str
) -> keras.KerasTensor:
    """Multiply a skip (B, *2 spatial, C) by attention that the level below computes.

    Additive attention of Oktay et al. 2018 (arXiv:1804.03999): `gate` (B, *spatial, G) and the
    skip, brought to its resolution, give one coefficient in (0, 1) for each voxel, which is
    interpolated back to the resolution of the skip.
    """
    convolution, between = layers_for(skip).convolution, max(skip.shape[-1] // 2, 1)
    theta = convolution(between, 2, strides=2, use_bias=False, name=f"{name}_gate_skip")(skip)
    phi = convolution(between, 1, name=f"{name}_gate_signal")(gate)
    both = keras.layers.Add(name=f"{name}_gate_add")([theta, phi])
    both = keras.layers.ReLU(name=f"{name}_gate_relu")(both)
    logit = convolution(1, 1, name=f"{name}_gate_psi")(both)
    attention = keras.layers.Activation("sigmoid", name=f"{name}_gate_sigmoid")(logit)
    attention = interpolated(attention)
    return keras.layers.Multiply(name=f"{name}_gate")([skip, attention])
