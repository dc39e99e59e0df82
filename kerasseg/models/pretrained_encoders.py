"""The encoders of keras.applications, and where a decoder is joined to them.

A file of ImageNet weights from Keras's download cache, downloaded if it is not there.

A first convolution made for RGB, for any number of channels.

Weights of a pretrained encoder, for any number of input channels.
"""

import hashlib
import http.client
import os
import queue
import sys
import threading
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import h5py
import keras
import numpy as np

from kerasseg.errors import UserError, storage_error
from kerasseg.progress import track

_SECONDS: Final = 10.0
"""How long a server may take to answer, and to send the next bytes."""

_BLOCK: Final = 1 << 20


def imagenet_file(name: str, url: str, md5: str | None) -> Path:
    """Path of the file `name` in Keras's cache, downloaded from `url` if need be.

    Keras's own `get_file` waits minutes for a network that swallows packets, and writes under
    the final name: after a crash, half a file counts as cached where Keras knows no checksum.
    This gives up after seconds and writes aside. A file that is there with the right checksum
    (or none known) is used without touching the network.

    Raises `UserError` that says how to get the file by other means.
    """
    path = _cache() / name
    found = path.exists()
    if found and (md5 is None or _md5(path) == md5):
        return path
    try:
        _download(url, path, md5)
    except _DownloadFailed as error:
        state = f"is not the one Keras knows (not md5 {md5})" if found else "is not there"
        raise UserError(
            f"model.pretrained.weights=imagenet: {path} {state}, and downloading it failed "
            f"({error}). Fetch {url} on a machine that can and save it as {path}, or set "
            "model.pretrained.weights to the path of the file, or to none for random weights."
        ) from error
    return path


class _DownloadFailed(Exception):
    """Why the file did not come."""


def _cache() -> Path:
    """Keras's folder for weights of applications."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras").expanduser() / "models"


def _download(url: str, path: Path, md5: str | None) -> None:
    with _response(url) as response:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # In a folder of its own: the runs of several folds may download at the same time.
            with TemporaryDirectory(dir=path.parent, prefix=".incomplete-") as folder:
                temporary = Path(folder) / path.name
                _receive(response, temporary, path, md5)
                temporary.replace(path)
        except OSError as error:
            raise storage_error(error, f"Writing {path}", "KERAS_HOME") from error


def _receive(response: Any, temporary: Path, path: Path, md5: str | None) -> None:
    expected = int(response.headers.get("Content-Length") or 0)
    digest, size = hashlib.md5(usedforsecurity=False), 0
    blocks = track(_blocks(response), -(-expected // _BLOCK), f"Downloading {path} (MiB)")
    with temporary.open("wb") as file:
        for block in blocks:
            file.write(block)
            digest.update(block)
            size += len(block)
    if expected and size != expected:
        raise _DownloadFailed(f"it broke off after {size} of {expected} bytes")
    if md5 is not None and digest.hexdigest() != md5:
        raise _DownloadFailed(f"what came has the md5 {digest.hexdigest()}, not {md5}")


def _blocks(response: Any) -> Iterator[bytes]:
    try:
        while block := response.read(_BLOCK):
            yield block
    except (OSError, http.client.HTTPException) as error:  # of the network, not of the disk
        raise _DownloadFailed(f"it broke off: {error}") from error


def _response(url: str) -> Any:
    """The opened `url`, through the proxies of the environment.

    `urlopen` alone applies its limit to each of the host's addresses in turn, and none to
    looking up its name.
    """
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(urllib.request.urlopen(url, timeout=_SECONDS))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=_SECONDS)
    except queue.Empty:
        raise _DownloadFailed(f"no answer within {_SECONDS:g} s") from None
    if isinstance(answer, Exception):
        raise _DownloadFailed(str(answer)) from answer
    return answer


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def inflate_stem(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Kernel (h, w, 3, F) of an RGB network -> (h, w, channels, F).

    Every channel gets the mean over R, G and B, times 3 / channels: an image of equal channels
    then gives the response that it gives as grey RGB, so that the layers behind see values in
    the range they were trained on. For 3 channels the kernel stays as it is.
    """
    rgb = kernel.shape[-2]
    if channels == rgb:
        return kernel
    mean = kernel.astype(np.float64).mean(axis=-2, keepdims=True) * (rgb / channels)
    return np.repeat(mean, channels, axis=-2).astype(kernel.dtype)


class PretrainedEncoder(NamedTuple):
    """A network of keras.applications.

    `skips` are the layers at 1/2, 1/4, 1/8 and 1/16 of the resolution: of each the last before
    the next downsampling. What the network ends in, without its top, is at 1/32.
    """

    title: str
    constructor: Callable[..., keras.Model]
    skips: tuple[str, str, str, str]
    options: Mapping[str, Any] = MappingProxyType({})

    def build(self, **arguments: Any) -> keras.Model:
        """The network without its top; `arguments` are the constructor's."""
        with warnings.catch_warnings():
            # It warns of any channel count but 1 and 3: MRI has as many as there are modalities.
            warnings.filterwarnings("ignore", message="This model usually expects")
            return self.constructor(include_top=False, **self.options, **arguments)


_NO_PREPROCESSING: Final = MappingProxyType({"include_preprocessing": False})
"""Scans are z-scores already; what would be rescaled away here are grey values of 0..255."""

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
"""`model.pretrained.encoder` -> network."""


def load_encoder_weights(network: keras.Model, encoder: str, weights: str) -> None:
    """Put `weights`, as `model.pretrained.weights` has them, into the layers of `encoder`.

    `network` holds these layers by their names, behind any number of input channels: the first
    convolution is inflated, all else, statistics of the norms included, is copied as it is.
    Raises `UserError` when the weights cannot be had or are another network's.
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


def _rgb_network(encoder: PretrainedEncoder, weights: str) -> keras.Model:
    """The encoder for 3 channels, as keras.applications has it, with its weights."""
    path = Path(weights).expanduser()
    remedy = "set model.pretrained.encoder to the network it is of, or give another file"
    try:
        if weights == "imagenet":
            remedy = "remove it, and it is downloaded again"
            with _cached_files() as files:
                # The size matters to MobileNetV2 only, whose files are named after it.
                network = encoder.build(weights="imagenet", input_shape=(224, 224, 3))
        else:
            files = [_readable(path)]
            network = encoder.build(weights=None, input_shape=(None, None, 3))
            _load(network, path)
    except UserError:
        raise
    except (OSError, KeyError, ValueError) as error:
        raise UserError(
            f"model.pretrained.weights: {files[-1]} does not hold the weights of {encoder.title} "
            "without its top, for 3 input channels "
            f"({' '.join(str(error).split())[:300]}): {remedy}."
        ) from error
    return network


@contextmanager
def _cached_files() -> Iterator[list[Path]]:
    """While open, keras.applications gets its files from `imagenet_file`; yields their list.

    Names, addresses and checksums of the files so stay Keras's own, and no list of them is kept
    here.
    """
    files: list[Path] = []

    def get_file(fname: str, origin: str, file_hash: str | None = None, **_: object) -> str:
        files.append(imagenet_file(fname, origin, file_hash))
        return str(_readable(files[-1]))

    module: Any = sys.modules[keras.utils.get_file.__module__]
    before = module.get_file
    module.get_file = get_file
    try:
        yield files
    finally:
        module.get_file = before


def _readable(path: Path) -> Path:
    """`path`, if it is an HDF5 file."""
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
    """`network.load_weights`, which only warns of some layers that are not in a .weights.h5."""
    network.set_weights([np.full_like(values, np.nan) for values in network.get_weights()])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Skipping nested container")
        network.load_weights(path)
    for layer in network.layers:
        if any(np.isnan(values).any() for values in layer.get_weights()):
            raise ValueError(f"it lacks those of layer {layer.name}")
