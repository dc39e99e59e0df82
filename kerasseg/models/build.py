"""The network that an experiment's settings describe."""

import keras

from kerasseg.config.model import ModelSettings
from kerasseg.models.pretrained_unet import pretrained_unet
from kerasseg.models.unet import unet

_NETWORKS = {"unet": unet, "pretrained_unet": pretrained_unet}


def build_network(settings: ModelSettings, input_channels: int) -> keras.Model:
    """Image (B, *spatial, C), of any size, -> probabilities (B, *spatial, K) float32.

    K are the channels of `model.target`. Layers: every decoder level ends in `decoder_<level>`, the
    encoder in `bottleneck`; then `head`, `logits` and `probabilities`. Under the current dtype
    policy. Raises `UserError` if a weight file cannot be had.
    """
    return _NETWORKS[settings.network](settings, input_channels)
