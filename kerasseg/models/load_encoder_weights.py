"""Weights of a pretrained encoder, for any number of input channels."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from kerasseg.errors import UserError
from kerasseg.models.imagenet_file import imagenet_file
from kerasseg.models.inflate_stem import inflate_stem
from kerasseg.models.pretrained_encoders import PRETRAINED_ENCODERS, PretrainedEncoder


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
