"""The 2-D U-Net on a pretrained encoder of keras.applications, and the encoder's weights."""

import errno
import hashlib
import os
import socket
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import h5py
import keras
import numpy as np

from kerasseg.config.model import ModelSettings
from kerasseg.errors import UserError, storage_error
from kerasseg.models.blocks import BATCH_NORM_MOMENTUM, dropout
from kerasseg.models.unet import decoder, pad_to_stride, with_output
from kerasseg.private_hooks import downloads_of_applications

_SECONDS: Final = 10.0
"""How long a server may take to answer, and to send the next bytes."""


class PretrainedEncoder(NamedTuple):
    """A network of keras.applications.

    Attributes:
        title: Its name in messages.
        constructor: The function of keras.applications.
        skips: The layers at 1/2, 1/4, 1/8 and 1/16 of the resolution: at each the last before the
            next downsampling. The end of the network, without its top, is at 1/32.
        options: Further arguments of the constructor.
    """

    title: str
    constructor: Callable[..., keras.Model]
    skips: tuple[str, str, str, str]
    options: Mapping[str, Any] = MappingProxyType({})

    def build(self, **arguments: Any) -> keras.Model:
        """Return the network without its top; `arguments` are the constructor's."""
        with warnings.catch_warnings():
            # It warns of any channel count but 1 and 3: MRI has as many as there are modalities.
            warnings.filterwarnings("ignore", message="This model usually expects")
            network = self.constructor(include_top=False, **self.options, **arguments)
        for layer in network.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = BATCH_NORM_MOMENTUM
        return network


_NO_PREPROCESSING: Final = MappingProxyType({"include_preprocessing": False})
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
    }
)
"""The setting `model.pretrained.encoder` -> its network."""


def pretrained_unet(settings: ModelSettings, input_channels: int) -> keras.Model:
    """Return a U-Net: image (B, H, W, C), of any size, -> probabilities (B, H, W, K).

    Skips leave the encoder at 1/2 to 1/16 of the resolution and the bottleneck is at 1/32; the
    decoder's level of full resolution has no skip. Iglovikov and Shvets 2018 (arXiv:1801.05746).

    Raises:
        UserError: The weights of `model.pretrained` cannot be had; they are not asked for where
            `model.init_from` replaces them.
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


def load_encoder_weights(network: keras.Model, encoder: str, weights: str) -> None:
    """Put pretrained weights into the encoder of `network`.

    The first convolution is inflated to the number of input channels; all other weights, statistics
    of the norms included, are copied as they are.

    Args:
        network: A network that holds the encoder's layers under their own names.
        encoder: A name in `PRETRAINED_ENCODERS`.
        weights: As in `model.pretrained.weights`: imagenet, none, or the path of a file.

    Raises:
        UserError: The weights cannot be had or belong to another network.
    """
    if weights == "none":
        return
    rgb = _rgb_network(PRETRAINED_ENCODERS[encoder], weights)
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


def _rgb_network(encoder: PretrainedEncoder, weights: str) -> keras.Model:
    """Return the encoder for 3 channels, as keras.applications has it, with its weights."""
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
        network = encoder.build(weights=None, input_shape=(None, None, 3))
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


def imagenet_file(name: str, url: str, md5: str | None) -> Path:
    """Return the path of a weight file in Keras's cache, downloading it if need be.

    The download goes to a folder of its own first, so that the runs of several folds may download
    at the same time and half a file is never taken for a whole one. A file that is there with the
    right checksum (or where none is known) is used without touching the network.

    Raises:
        UserError: The download failed; the message says how to get the file by other means.
    """
    home = os.environ.get("KERAS_HOME")
    path = (Path(home) if home else Path.home() / ".keras").expanduser() / "models" / name
    found = path.exists()
    if found and md5 in (None, hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent, prefix=".incomplete-") as folder:
            failure = _download(name, url, md5, Path(folder))
            if failure is None:
                (Path(folder) / name).replace(path)
                return path
    except OSError as error:
        raise storage_error(error, f"Writing {path}", "KERAS_HOME") from error
    state = f"is not the one Keras knows (not md5 {md5})" if found else "is not there"
    raise UserError(
        f"model.pretrained.weights=imagenet: {path} {state}, and downloading it failed "
        f"({failure}). Fetch {url} on a machine that can and save it as {path}, or set "
        "model.pretrained.weights to the path of the file, or to none for random weights."
    )


def _download(name: str, url: str, md5: str | None, folder: Path) -> Exception | None:
    """Download `url` as `folder`/`name` and return why that failed, or None.

    Raises:
        OSError: The disk is full.
    """
    failures: list[Exception] = []

    def fetch() -> None:
        try:
            keras.utils.get_file(name, url, cache_dir=folder, cache_subdir="", file_hash=md5)
        except Exception as error:  # Keras raises plain `Exception` for the network's errors
            failures.append(error)

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SECONDS)
    try:
        # The socket's limit is one for each of the host's addresses, and none for looking up its
        # name; the thread's is one for all. Keras creates the file as soon as the server answers.
        thread = threading.Thread(target=fetch, daemon=True)
        thread.start()
        thread.join(_SECONDS)
        if thread.is_alive() and not (folder / name).exists():
            return TimeoutError(f"no answer within {_SECONDS:g} s")
        thread.join()
    finally:
        socket.setdefaulttimeout(before)
    failure = failures[0] if failures else None
    if isinstance(failure, OSError) and failure.errno == errno.ENOSPC:
        raise failure
    return failure


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
