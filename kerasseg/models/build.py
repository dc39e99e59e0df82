"""The network that the settings describe, and its copy in float32."""

from typing import Any

import keras

from kerasseg.config.model import ModelSettings
from kerasseg.models.pretrained_unet import pretrained_unet
from kerasseg.models.unet import unet

_NETWORKS = {"unet": unet, "pretrained_unet": pretrained_unet}


def build_network(settings: ModelSettings, input_channels: int) -> keras.Model:
    """Return a network: image (B, *spatial, C), of any size, -> probabilities (B, *spatial, K).

    K are the channels of `model.target`; probabilities are float32, everything else follows the
    current dtype policy. Every decoder level ends in a layer `decoder_<level>`, the encoder in
    `bottleneck`; then come `head`, `logits` and `probabilities`.

    Raises:
        UserError: A weight file cannot be had.
    """
    return _NETWORKS[settings.network](settings, input_channels)


def float32_twin(network: keras.Model) -> keras.Model:
    """Return a copy of `network` that computes in float32, or the network itself if it does.

    TensorFlow has no float16 kernel for 3-D pooling on a CPU, so a checkpoint saved as it was
    trained on a GPU could not be loaded and run without one. Weights are float32 either way.
    """
    if all(layer.compute_dtype == "float32" for layer in network.layers):
        return network

    def in_float32(operation: Any) -> Any:
        config = operation.get_config()
        if isinstance(operation, keras.layers.Layer):  # `keras.ops` between them have no dtype
            config["dtype"] = "float32"
        return operation.__class__.from_config(config)

    twin = keras.models.clone_model(network, clone_function=in_float32)
    twin.set_weights(network.get_weights())
    return twin
