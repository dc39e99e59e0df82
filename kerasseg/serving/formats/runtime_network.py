"""A written model behind the face of a Keras network, for the one sliding window."""

from typing import Any

import keras
import tensorflow as tf

from kerasseg.serving.formats.runtime import Runtime


def runtime_network(runtime: Runtime, network: keras.Model) -> keras.Model:
    """A network of the shapes of `network` that computes in `runtime`, for `Predictor`."""
    shape, channels = network.inputs[0].shape, network.outputs[0].shape[-1]
    patches = keras.Input(batch_shape=shape, dtype="float32")
    found = _InRuntime(runtime, channels)(patches)
    return keras.Model(patches, found, name=f"{network.name}_exported")


class _InRuntime(keras.layers.Layer):
    def __init__(self, runtime: Runtime, channels: int) -> None:
        super().__init__(dtype="float32")
        self.runtime = runtime
        self.channels = channels

    def call(self, patches: Any) -> Any:
        found = tf.numpy_function(self.runtime.predict, [patches], tf.float32, stateful=False)
        return tf.ensure_shape(found, self.compute_output_shape(patches.shape))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.channels)
