"""The way up again, of every U-Net, and its output."""

from collections.abc import Sequence

import keras

from kerasseg import anatomy
from kerasseg.models.any_size import crop_like
from kerasseg.models.attention_gate import attention_gate
from kerasseg.models.blocks import blocks, blocks_per_level, dropout, layers_for
from kerasseg.models.upsampling import upsampled
from kerasseg.settings.model import ModelSettings


def decoder(
    x: keras.KerasTensor,
    skips: Sequence[keras.KerasTensor | None],
    features: Sequence[int],
    settings: ModelSettings,
) -> keras.KerasTensor:
    """Bottleneck (B, *spatial, C) -> features of full resolution (B, *spatial 2^levels, C).

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
    """The network from `image` to the probabilities of `model.target`, of the image's size.

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
