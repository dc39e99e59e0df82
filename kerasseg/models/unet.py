"""The U-Net, for volumes and for slices."""

import keras

from kerasseg.models.any_size import pad_to_stride
from kerasseg.models.blocks import (
    blocks,
    blocks_per_level,
    convolution_block,
    dropout,
    layers_for,
)
from kerasseg.models.decoder import decoder, with_output
from kerasseg.settings.model import ModelSettings


def unet(settings: ModelSettings, input_channels: int) -> keras.Model:
    """U-Net: image (B, D, H, W, C) -> probabilities (B, D, H, W, K) float32.

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
