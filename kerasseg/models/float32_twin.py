"""The same network in float32, for checkpoints that run anywhere."""

from typing import Any

import keras


def float32_twin(network: keras.Model) -> keras.Model:
    """A copy of `network` that computes in float32; the network itself if it already does.

    TensorFlow has no float16 kernel for 3-D pooling on a CPU, so a checkpoint saved as it was
    trained on a GPU could not be loaded and run without one. Weights are float32 either way.
    """
    if all(layer.compute_dtype == "float32" for layer in network.layers):
        return network
    twin = keras.models.clone_model(network, clone_function=_in_float32)
    twin.set_weights(network.get_weights())
    return twin


def _in_float32(operation: Any) -> Any:
    """A copy of a layer, or of one of the `keras.ops` between them, which have no precision."""
    config = operation.get_config()
    if isinstance(operation, keras.layers.Layer):
        config["dtype"] = "float32"
    return operation.__class__.from_config(config)
