"""Attention gates on the skip connections."""

import keras

from kerasseg.models.blocks import layers_for
from kerasseg.models.upsampling import interpolated


def attention_gate(
    skip: keras.KerasTensor, gate: keras.KerasTensor, name: str
) -> keras.KerasTensor:
    """Skip (B, *2 spatial, C), multiplied by what the level below finds worth looking at.

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
