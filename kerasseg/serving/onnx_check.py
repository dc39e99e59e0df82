"""An ONNX file run by onnxruntime, and how far it is from the Keras network that it was made of.

The sums of a normalisation go over all voxels of a patch. Where most of it is air, which has one
value, float32 loses digits in a single sum, and Keras's own probabilities are off by up to 0.01.
The file takes the means axis by axis, which is exact to 1e-5, and is held to a copy of the network
that does so, too.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from kerasseg.datasets.phantom import make_phantom
from kerasseg.records.normalise import z_score

INPUT: Final = "patches"
OUTPUT: Final = "probabilities"


class OnnxNetwork:
    """A written ONNX file, run by onnxruntime on the processor.

    Attributes:
        runtime: Name and version of onnxruntime.
        shape: Shape of the input; None where any size is taken.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (patches,) = self._session.get_inputs()
        self.runtime = f"onnxruntime {onnxruntime.__version__}"
        self.shape = tuple(size if isinstance(size, int) else None for size in patches.shape)

    @property
    def any_size(self) -> bool:
        """True if patches of any size are taken."""
        return all(size is None for size in self.shape[1:-1])

    def predict(self, patches: np.ndarray) -> np.ndarray:
        """Return the probabilities (B, …, K) float32 of patches (B, …, C) float32."""
        return np.asarray(self._session.run([OUTPUT], {INPUT: patches})[0])

    def as_keras(self, network: keras.Model) -> keras.Model:
        """Return a Keras model with the shapes of `network` that computes in onnxruntime."""
        shape = network.outputs[0].shape

        def predict(patches: Any) -> Any:
            found = tf.numpy_function(self.predict, [patches], tf.float32, stateful=False)
            return tf.ensure_shape(found, (*patches.shape[:-1], shape[-1]))

        patches = keras.Input(batch_shape=network.inputs[0].shape, dtype="float32")
        layer = keras.layers.Lambda(predict, output_shape=shape[1:], dtype="float32")
        return keras.Model(patches, layer(patches), name=f"{network.name}_exported")


class _ExactMeans(keras.layers.GroupNormalization):
    """Keras's normalisation of channels or groups of them, with means taken axis by axis."""

    def call(self, inputs: Any) -> Any:
        mean = self._mean(inputs)
        deviation = ops.sqrt(self._mean(ops.square(inputs - mean)) + self.epsilon)
        x = (inputs - mean) / deviation
        x = x * self.gamma if self.scale else x
        return x + self.beta if self.center else x

    def _mean(self, x: Any) -> Any:
        channels = x.shape[-1]
        for axis in range(1, len(x.shape) - 1):
            x = ops.mean(x, axis=axis, keepdims=True)
        if self.groups != channels:
            parts = ops.reshape(x, (*ops.shape(x)[:-1], self.groups, channels // self.groups))
            x = ops.repeat(ops.mean(parts, axis=-1), channels // self.groups, axis=-1)
        return x


def exact_twin(network: keras.Model) -> keras.Model:
    """Return a copy of a float32 network whose normalisations take their means axis by axis."""

    def copied(operation: Any) -> Any:
        exact = type(operation) is keras.layers.GroupNormalization
        return (_ExactMeans if exact else type(operation)).from_config(operation.get_config())

    twin = keras.models.clone_model(network, clone_function=copied)
    twin.set_weights(network.get_weights())
    return twin


def check_patches(patch: tuple[int, ...], channels: int, any_size: bool) -> list[np.ndarray]:
    """Return z-scored patches (B, …, channels) float32: noise, and phantoms with air around.

    Args:
        patch: The run's size of a patch.
        any_size: Whether patches of other sizes are taken: then there are longer and larger ones.
    """
    noise = np.random.default_rng(0).standard_normal((2, *patch, channels), np.float32)
    sizes = [patch]
    if any_size:
        sizes += [(2 * patch[0], *patch[1:]), tuple(size + size // 2 for size in patch)]
    return [noise, *(_phantom_patch(size, channels) for size in sizes)]


def _phantom_patch(size: tuple[int, ...], channels: int) -> np.ndarray:
    shape = (16, *size) if len(size) == 2 else size
    depth, height, width = (max(n, 16) for n in shape)
    image, _ = make_phantom((depth, height, width), seed=1, index=0)
    volume = z_score(image)[0].astype(np.float16).astype(np.float32)
    # The phantom in one corner, and exact 0 in the rest, as a window at a volume's edge has it.
    placed = np.zeros((*shape, volume.shape[-1]), np.float32)
    parts = [slice(n - n // 3 * 2, None) for n in shape]
    placed[tuple(parts)] = volume[tuple(slice(0, n // 3 * 2) for n in shape)]
    placed = placed if len(size) == 3 else placed[12]
    return np.ascontiguousarray(placed[np.newaxis][..., np.arange(channels) % placed.shape[-1]])


def largest_difference(
    network: keras.Model, exported: OnnxNetwork, patches: Sequence[np.ndarray]
) -> float:
    """Return the largest difference of a probability over some patches.

    It is infinite where a value is not finite or where the shapes of the probabilities differ.
    """
    worst = 0.0
    for patch in patches:
        expected = ops.convert_to_numpy(network(patch, training=False))
        found = exported.predict(patch)
        if found.shape != expected.shape or not np.isfinite(found).all():
            return float("inf")
        worst = max(worst, float(np.abs(found - expected).max()))
    return worst
