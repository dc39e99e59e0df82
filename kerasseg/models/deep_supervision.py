"""Heads at lower resolutions, for training only."""

import keras

from kerasseg.models.any_size import crop_like
from kerasseg.models.blocks import layers_for


def supervision_logits(
    network: keras.Model, count: int, output_channels: int
) -> list[keras.KerasTensor]:
    """Logits of new heads on the decoder's levels 2, 3, … of `network`.

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
