"""The 2-D U-Net on a pretrained encoder of keras.applications, and the encoder's weights."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import h5py
import keras
import numpy as np

from kerasseg.config.model import ModelSettings
from kerasseg.errors import UserError
from kerasseg.models.blocks import BATCH_NORM_MOMENTUM, dropout
from kerasseg.models.efficientnet_lite import efficientnet_lite0, load_efficientnet_lite0
from kerasseg.models.unet import decoder, pad_to_stride, with_output
from kerasseg.pretrained_weights import imagenet_file, packaged_file
from kerasseg.private_hooks import downloads_of_applications


class PretrainedEncoder(NamedTuple):
    """A network of keras.applications, or one whose weights PyTorch wrote.

    Attributes:
        title: Its name in messages.
        constructor: The function of keras.applications, or one of ours.
        skips: The layers at 1/2, 1/4, 1/8 and 1/16 of the resolution: at each the last before the
            next downsampling. The end of the network, without its top, is at 1/32.
        options: Further arguments of the constructor.
        load: The function that reads its weights from a file of PyTorch, None for Keras's files.
    """

    title: str
    constructor: Callable[..., keras.Model]
    skips: tuple[str, str, str, str]
    options: Mapping[str, Any] = MappingProxyType({"include_top": False, "weights": None})
    load: Callable[[keras.Model, Path], None] | None = None

    def build(self, **arguments: Any) -> keras.Model:
        """Return the network without its top; `arguments` are the constructor's.

        It has random weights unless `arguments` say otherwise.
        """
        with warnings.catch_warnings():
            # It warns of any channel count but 1 and 3: MRI has as many as there are modalities.
            warnings.filterwarnings("ignore", message="This model usually expects")
            network = self.constructor(**{**self.options, **arguments})
        for layer in network.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = BATCH_NORM_MOMENTUM
        return network


_SETTING: Final = "model.pretrained.weights"

_NO_PREPROCESSING: Final = MappingProxyType(
    {"include_top": False, "weights": None, "include_preprocessing": False}
)
"""Scans are z-scores already; the rescaling left out here is of grey values from 0 to 255."""

PRETRAINED_ENCODERS: Final = MappingProxyType(
    {
        # He et al. 2016, arXiv:1603.05027
        "resnet50v2": PretrainedEncoder(
            "ResNet50V2",
            keras.applications.ResNet50V2,
            ("conv1_conv", "conv2_block3_1_relu", "conv3_block4_1_relu", "conv4_block6_1_relu"),
        ),
        # Tan and Le 2021, arXiv:2104.00298
        "efficientnetv2b0": PretrainedEncoder(
            "EfficientNetV2B0",
            keras.applications.EfficientNetV2B0,
            (
                "block1a_project_activation",
                "block2b_add",
                "block4a_expand_activation",
                "block6a_expand_activation",
            ),
            _NO_PREPROCESSING,
        ),
        "efficientnetv2s": PretrainedEncoder(
            "EfficientNetV2S",
            keras.applications.EfficientNetV2S,
            (
                "block1b_add",
                "block2d_add",
                "block4a_expand_activation",
                "block6a_expand_activation",
            ),
            _NO_PREPROCESSING,
        ),
        # Sandler et al. 2018, arXiv:1801.04381
        "mobilenetv2": PretrainedEncoder(
            "MobileNetV2",
            keras.applications.MobileNetV2,
            (
                "block_1_expand_relu",
                "block_3_expand_relu",
                "block_6_expand_relu",
                "block_13_expand_relu",
            ),
        ),
        # Huang et al. 2017, arXiv:1608.06993
        "densenet121": PretrainedEncoder(
            "DenseNet121",
            keras.applications.DenseNet121,
            ("conv1_relu", "pool2_conv", "pool3_conv", "pool4_conv"),
        ),
        "efficientnetlite0": PretrainedEncoder(
            "EfficientNet-Lite0",
            efficientnet_lite0,
            (
                "blocks_1_expand_relu",
                "blocks_3_expand_relu",
                "blocks_5_expand_relu",
                "blocks_11_expand_relu",
            ),
            {},
            load_efficientnet_lite0,
        ),
    }
)
"""The setting `model.pretrained.encoder` -> its network."""


def pretrained_unet(settings: ModelSettings, input_channels: int) -> keras.Model:
    """Return a U-Net: image (B, H, W, C), of any size, -> probabilities (B, H, W, K).

    Skips leave the encoder at 1/2 to 1/16 of the resolution and the bottleneck is at 1/32; the
    decoder's level of full resolution has no skip. Iglovikov and Shvets 2018 (arXiv:1801.05746).
    Raises `UserError` if the weights of `model.pretrained` cannot be had; they are not asked for
    where `model.init_from` replaces them.
    """
    encoder = PRETRAINED_ENCODERS[settings.pretrained.encoder]
    image = keras.Input((None, None, input_channels), name="image")
    layers = encoder.build(
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


def load_encoder_weights(network: keras.Model, encoder: str, weights: str) -> None:
    """Put pretrained weights into the encoder of `network`.

    The first convolution is inflated to the number of input channels; all other weights, statistics
    of the norms included, are copied as they are. Raises `UserError` if the weights cannot be had
    or belong to another network.

    Args:
        network: A network that holds the encoder's layers under their own names.
        encoder: A name in `PRETRAINED_ENCODERS`.
        weights: As in `model.pretrained.weights`: imagenet, none, or the path of a file.
    """
    if weights == "none":
        return
    rgb = _rgb_network(encoder, weights)
    stem = next(layer for layer in rgb.layers if isinstance(layer, keras.layers.Conv2D))
    for layer in rgb.layers:
        if values := layer.get_weights():
            target = network.get_layer(layer.name)
            if layer is stem:
                values[0] = inflate_stem(values[0], target.kernel.shape[-2])
            target.set_weights(values)


def inflate_stem(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Return the kernel (h, w, 3, F) of an RGB network as (h, w, channels, F).

    Every channel gets the mean over R, G and B, times 3 / channels: an image of equal channels
    then gives the response that it gives as grey RGB, so that the layers behind see values in
    the range they were trained on. For 3 channels the kernel stays as it is.
    """
    rgb = kernel.shape[-2]
    if channels == rgb:
        return kernel
    mean = kernel.astype(np.float64).mean(axis=-2, keepdims=True) * (rgb / channels)
    return np.repeat(mean, channels, axis=-2).astype(kernel.dtype)


def _rgb_network(name: str, weights: str) -> keras.Model:
    """Return the encoder for 3 channels, with the weights of ImageNet or of a file."""
    encoder = PRETRAINED_ENCODERS[name]
    if encoder.load is not None:
        network = encoder.build(input_shape=(None, None, 3))
        of_imagenet = weights == "imagenet"
        path = packaged_file(name, _SETTING) if of_imagenet else Path(weights).expanduser()
        encoder.load(network, path)
        return network
    files: list[Path] = []

    def get_file(fname: str, origin: str, file_hash: str | None = None, **_: object) -> str:
        files.append(imagenet_file(fname, origin, file_hash))
        return str(_readable(files[-1]))

    remedy = "set model.pretrained.encoder to the network it is of, or give another file"
    try:
        if weights == "imagenet":
            remedy = "remove it, and it is downloaded again"
            with downloads_of_applications(get_file):
                # The size matters to MobileNetV2 only, whose files are named after it.
                return encoder.build(weights="imagenet", input_shape=(224, 224, 3))
        files.append(_readable(Path(weights).expanduser()))
        network = encoder.build(input_shape=(None, None, 3))
        _load(network, files[-1])
    except UserError:
        raise
    except (OSError, KeyError, ValueError) as error:
        raise UserError(
            f"model.pretrained.weights: {files[-1]} does not hold the weights of {encoder.title} "
            "without its top, for 3 input channels "
            f"({' '.join(str(error).split())[:300]}): {remedy}."
        ) from error
    return network


def _readable(path: Path) -> Path:
    """Return `path` if it is an HDF5 file, or raise UserError."""
    if not path.is_file():
        raise UserError(
            f"model.pretrained.weights: there is no file {path}: give the path of a .h5 or "
            ".weights.h5 file, imagenet or none."
        )
    try:
        h5py.File(path).close()
    except OSError as error:
        raise UserError(
            f"model.pretrained.weights: {path} cannot be read as an HDF5 file ({error}): is it a "
            "web page, or half a download? Remove it and fetch it again."
        ) from None
    return path


def _load(network: keras.Model, path: Path) -> None:
    """Load all weights; `network.load_weights` alone only warns of some that are missing."""
    network.set_weights([np.full_like(values, np.nan) for values in network.get_weights()])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Skipping nested container")
        network.load_weights(path)
    for layer in network.layers:
        if any(np.isnan(values).any() for values in layer.get_weights()):
            raise ValueError(f"it lacks those of layer {layer.name}")
