"""Networks: Functional Keras models written with `keras.ops` and `keras.layers` only."""

from typing import Any

import keras

from kerasseg.config.model import ModelSettings
from kerasseg.models import unet as _unet

__all__ = ["unet"]


def unet(input_channels: int, **settings: Any) -> keras.Model:
    """Build the U-Net: image (B, D, H, W, C), of any size, -> probabilities (B, D, H, W, K).

    Args:
        input_channels: The channels C of the image.
        settings: Settings of section `model` of a config (docs/models.md), such as dimensions=2,
            target="regions", features=(16, 32, 64), bottleneck=128.

    Returns:
        A functional Keras model without weights from elsewhere. K are the channels of `target`.

    Raises:
        pydantic.ValidationError: A setting does not exist, or has a wrong value.

    Examples:
        >>> network = kerasseg.models.unet(4, target="regions", features=(8, 16), bottleneck=32)
    """
    return _unet.unet(ModelSettings(network="unet", **settings), input_channels)
