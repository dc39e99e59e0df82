"""The network that the settings describe, and its copy in float32."""

from typing import Any

import keras

from kerasseg import anatomy
from kerasseg.config.base import check_arguments, import_object
from kerasseg.config.model import NETWORKS, ModelSettings
from kerasseg.errors import UserError


def build_network(settings: ModelSettings, input_channels: int) -> keras.Model:
    """Return a network: image (B, *spatial, C), of any size, -> probabilities (B, *spatial, K).

    K are the channels of `model.target`; probabilities are float32, everything else follows the
    current dtype policy. Every decoder level ends in a layer `decoder_<level>`, the encoder in
    `bottleneck`; then come `head`, `logits` and `probabilities`.

    Raises:
        UserError: A weight file cannot be had, or a network of the user lacks what training needs.
    """
    path = NETWORKS.get(settings.network, settings.network)
    build = import_object("model.network", path, "a function that builds a network")
    check_arguments("model.options", path, build, (settings, input_channels), settings.options)
    network = build(settings, input_channels, **settings.options)
    if settings.network not in NETWORKS:
        _check_network(network, settings)
    return network


def _check_network(network: Any, settings: ModelSettings) -> None:
    """Raise `UserError` where a network of the user lacks what training asks of it."""
    if not isinstance(network, keras.Model):
        raise UserError(
            f"model.network: {settings.network} returned {network!r:.60}, expected a functional "
            "keras.Model."
        )
    names = {layer.name for layer in network.layers}
    needed = ["bottleneck", "logits"]
    if settings.deep_supervision:
        needed += ["head", *(f"decoder_{i + 2}" for i in range(settings.deep_supervision))]
    missing = [name for name in needed if name not in names]
    if missing:
        raise UserError(
            f"model.network: the network of {settings.network} has no layer "
            f"{' and no layer '.join(missing)}, by whose name training finds it: give a layer the "
            "name; kerasseg.models.unet.with_output adds head and logits."
        )
    channels, found = len(anatomy.TARGETS[settings.target]), tuple(network.outputs[0].shape)
    if len(network.outputs) != 1 or len(found) != settings.dimensions + 2 or found[-1] != channels:
        raise UserError(
            f"model.network: the network of {settings.network} gives {found}, expected one output "
            f"of {settings.dimensions + 2} axes, the last of the {channels} channel(s) of "
            f"model.target={settings.target}."
        )


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
