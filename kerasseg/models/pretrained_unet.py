"""The U-Net on a pretrained encoder, for slices."""

import keras

from kerasseg.config.model import ModelSettings
from kerasseg.models.blocks import dropout
from kerasseg.models.pretrained_encoders import PRETRAINED_ENCODERS, load_encoder_weights
from kerasseg.models.unet import decoder, pad_to_stride, with_output


def pretrained_unet(settings: ModelSettings, input_channels: int) -> keras.Model:
    """U-Net on an encoder of keras.applications: image (B, H, W, C) -> probabilities (B, H, W, K).

    H and W may be anything. Skips leave the encoder at 1/2 to 1/16 of the resolution and the
    bottleneck is at 1/32; the decoder's level of full resolution has no skip. Iglovikov and Shvets
    2018 (arXiv:1801.05746). Weights of `model.pretrained` are not asked for where
    `model.init_from` replaces them. Raises `UserError` if they cannot be had.
    """
    encoder = PRETRAINED_ENCODERS[settings.pretrained.encoder]
    image = keras.Input((None, None, input_channels), name="image")
    layers = encoder.build(
        weights=None,
        input_tensor=pad_to_stride(image, settings.stride),
        input_shape=(None, None, input_channels),
    )
    skips: list[keras.KerasTensor | None] = [None]
    for level, layer in enumerate(encoder.skips, start=2):
        x = layers.get_layer(layer).output
        skips.append(dropout(x, settings, "encoder", f"encoder_{level}"))
    x = dropout(layers.output, settings, "bottleneck", "bottleneck")
    x = keras.layers.Identity(name="bottleneck")(x)
    x = decoder(x, skips, settings.pretrained.decoder_features, settings)
    network = with_output(image, x, settings, f"unet_{settings.pretrained.encoder}")
    if settings.init_from is None:
        load_encoder_weights(network, settings.pretrained.encoder, settings.pretrained.weights)
    return network
