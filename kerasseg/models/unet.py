"""The U-Net, for volumes and for slices."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import keras

_INSTANCE_NORM_EPSILON = 1e-5


class _Layers(NamedTuple):
    """The layers that differ between slices and volumes."""

    convolution: Any
    up_convolution: Any
    pooling: Any


_LAYERS = MappingProxyType(
    {
        2: _Layers(keras.layers.Conv2D, keras.layers.Conv2DTranspose, keras.layers.MaxPooling2D),
        3: _Layers(keras.layers.Conv3D, keras.layers.Conv3DTranspose, keras.layers.MaxPooling3D),
    }
)


def unet(
    input_channels: int,
    output_channels: int,
    features: Sequence[int] = (32, 64, 128, 256),
    bottleneck: int = 512,
    negative_slope: float = 0.01,
    dimensions: int = 3,
) -> keras.Model:
    """U-Net: image (B, D, H, W, C) -> probabilities (B, D, H, W, K) float32, sigmoid.

    With `dimensions` 2 the same network for slices, (B, H, W, C) -> (B, H, W, K). Cicek et al.
    2016 (arXiv:1606.06650) and Ronneberger et al. 2015 (arXiv:1505.04597) with instance norm and
    leaky ReLU as in nnU-Net (Isensee et al. 2021). D, H and W may be anything divisible by
    2 ** len(features). The output stays float32 under mixed precision.
    """
    layers = _LAYERS[dimensions]
    image = keras.Input((*[None] * dimensions, input_channels), name="image")
    x = image
    skips = []
    for level, channels in enumerate(features, start=1):
        x = _double_conv(x, layers, channels, negative_slope, f"encoder_{level}")
        skips.append(x)
        x = layers.pooling(2, name=f"encoder_{level}_pool")(x)
    x = _double_conv(x, layers, bottleneck, negative_slope, "bottleneck")
    for level in range(len(features), 0, -1):
        channels, name = features[level - 1], f"decoder_{level}"
        x = layers.up_convolution(channels, 2, strides=2, name=f"{name}_up")(x)
        x = keras.layers.Concatenate(name=f"{name}_concatenate")([skips[level - 1], x])
        x = _double_conv(x, layers, channels, negative_slope, name)
    x = layers.convolution(output_channels, 1, name="head")(x)
    probabilities = keras.layers.Activation("sigmoid", dtype="float32", name="probabilities")(x)
    return keras.Model(image, probabilities, name=f"unet_{dimensions}d")


def _double_conv(
    x: keras.KerasTensor, layers: _Layers, channels: int, negative_slope: float, name: str
) -> keras.KerasTensor:
    for index in (1, 2):
        x = layers.convolution(
            channels,
            3,
            padding="same",
            kernel_initializer="he_normal",
            name=f"{name}_conv_{index}",
        )(x)
        x = keras.layers.GroupNormalization(
            groups=-1, epsilon=_INSTANCE_NORM_EPSILON, name=f"{name}_norm_{index}"
        )(x)
        x = keras.layers.LeakyReLU(negative_slope, name=f"{name}_activation_{index}")(x)
    return x
