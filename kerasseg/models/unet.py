"""The 3-D U-Net."""

from collections.abc import Sequence

import keras

_INSTANCE_NORM_EPSILON = 1e-5


def unet(
    input_channels: int,
    output_channels: int,
    features: Sequence[int] = (32, 64, 128, 256),
    bottleneck: int = 512,
    negative_slope: float = 0.01,
) -> keras.Model:
    """3-D U-Net: image (B, D, H, W, C) -> probabilities (B, D, H, W, K) float32, sigmoid.

    Cicek et al. 2016 (arXiv:1606.06650) with instance norm and leaky ReLU as in nnU-Net (Isensee
    et al. 2021). D, H and W may be anything divisible by 2 ** len(features). The output stays
    float32 under mixed precision.
    """
    image = keras.Input((None, None, None, input_channels), name="image")
    x = image
    skips = []
    for level, channels in enumerate(features, start=1):
        x = _double_conv(x, channels, negative_slope, f"encoder_{level}")
        skips.append(x)
        x = keras.layers.MaxPooling3D(2, name=f"encoder_{level}_pool")(x)
    x = _double_conv(x, bottleneck, negative_slope, "bottleneck")
    for level in range(len(features), 0, -1):
        channels, name = features[level - 1], f"decoder_{level}"
        x = keras.layers.Conv3DTranspose(channels, 2, strides=2, name=f"{name}_up")(x)
        x = keras.layers.Concatenate(name=f"{name}_concatenate")([skips[level - 1], x])
        x = _double_conv(x, channels, negative_slope, name)
    x = keras.layers.Conv3D(output_channels, 1, name="head")(x)
    probabilities = keras.layers.Activation("sigmoid", dtype="float32", name="probabilities")(x)
    return keras.Model(image, probabilities, name="unet_3d")


def _double_conv(
    x: keras.KerasTensor, channels: int, negative_slope: float, name: str
) -> keras.KerasTensor:
    for index in (1, 2):
        x = keras.layers.Conv3D(
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
