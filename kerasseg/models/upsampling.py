"""Twice the resolution: by a transposed convolution, or by linear interpolation."""

import keras
from keras import ops

from kerasseg.models.blocks import layers_for
from kerasseg.settings.model import ModelSettings


def upsampled(
    x: keras.KerasTensor, settings: ModelSettings, channels: int, name: str
) -> keras.KerasTensor:
    """(B, *spatial, C) -> (B, *2 spatial, channels).

    `interpolate` is followed by a convolution of size 2, the "up-convolution" of Ronneberger et al.
    2015; a transposed convolution has the same kernel, so both have the same parameters.
    """
    if settings.upsampling == "transpose":
        return layers_for(x).up_convolution(channels, 2, strides=2, name=f"{name}_up")(x)
    x = interpolated(x)
    return layers_for(x).convolution(channels, 2, padding="same", name=f"{name}_up")(x)


def interpolated(x: keras.KerasTensor) -> keras.KerasTensor:
    """(B, *spatial, C) -> (B, *2 spatial, C) by bi- or trilinear interpolation.

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
