"""A network that starts from the weights of another run, or of a 2-D one for a 3-D network."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import keras
import numpy as np

from kerasseg.config.model import ModelSettings, init_path
from kerasseg.errors import UserError
from kerasseg.models.unet import encoder_layers
from kerasseg.run import load_network, read_run, runs_in


def inflate_kernel(kernel: np.ndarray, depth: int, *, taps: float) -> np.ndarray:
    """Return a kernel (h, w, a, b) as (depth, h, w, a, b), repeated and divided by `taps`.

    `taps` is how many of the `depth` weights along depth meet in one output voxel: all of them in
    a convolution, depth / stride in a transposed one. A volume that is the same in every slice
    then gives, away from its first and last slices, what the 2-D layer gives of one slice
    (Carreira and Zisserman 2017, arXiv:1705.07750).
    """
    return np.repeat(kernel[None], depth, axis=0) / np.asarray(taps, kernel.dtype)


_SHOWN: Final = 5
"""Differences that an error lists."""

_MAY_DIFFER: Final = frozenset(
    f"model.{name}"
    for name in (
        "dimensions",
        "dropout",
        "deep_supervision",
        "init_from",
        "init_part",
        "pretrained",
        "pretrained.weights",
    )
)
"""Settings that change no weight that is loaded."""


def load_initial_weights(network: keras.Model, settings: ModelSettings) -> None:
    """Put the weights that `model.init_from` and `model.init_part` mean into `network`.

    Weights go by the names of their layers. Those of a 2-D network are inflated for a 3-D one
    (`inflate_kernel`). Does nothing where nothing is set. Raises `UserError` when there is no
    such network, or when not every weight of the part fits.
    """
    path = init_path(settings)
    if path is None:
        return
    source = _open(path, settings)
    here, there = _dimensions(network), _dimensions(source)
    if there > here:
        raise UserError(
            f"model.init_from: {path} is a 3-D network, and its kernels cannot be made into those "
            "of a 2-D one: name a 2-D run, or set model.dimensions=3."
        )
    channels, source_channels = network.inputs[0].shape[-1], source.inputs[0].shape[-1]
    if channels != source_channels:
        raise UserError(
            f"model.init_from: {path} sees {source_channels} input channel(s), this network "
            f"{channels}: set data.modalities and pipeline.slices.neighbours as that run has them."
        )
    layers = _part(network, settings.init_part)
    source_layers = _part(source, settings.init_part)
    differences = _differences(layers, source_layers)
    if differences:
        listed = "; ".join(differences[:_SHOWN])
        more = f"; and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        raise UserError(
            f"model.init_from: {path} does not fit this network ({listed}{more}). "
            f"{_advice(path, settings, differences)}"
        )
    for name, layer in layers.items():
        if layer.weights:
            layer.set_weights(_values(layer, source_layers[name]))


def _open(path: Path, settings: ModelSettings) -> keras.Model:
    if not path.is_file():
        root = settings.init_from.parent if settings.init_from else Path()
        raise UserError(
            f"model.init_from: there is no file {path}: give the folder of a run that has one, or "
            f"a .keras file. Runs in {root}: {', '.join(runs_in(root)) or 'none'}."
        )
    try:
        network = load_network(path)
    except UserError as error:
        raise UserError(f"model.init_from: {error}") from error
    names = {layer.name for layer in getattr(network, "layers", ())}
    if "bottleneck" not in names:
        raise UserError(
            f"model.init_from: {path} is not a network of kerasseg (it has no layer bottleneck): "
            "name the folder of a run."
        )
    return network


def _dimensions(network: keras.Model) -> int:
    return len(network.inputs[0].shape) - 2


def _part(network: keras.Model, part: str) -> dict[str, keras.layers.Layer]:
    layers = encoder_layers(network) if part == "encoder" else network.layers
    return {layer.name: layer for layer in layers}


def _values(layer: keras.layers.Layer, source: keras.layers.Layer) -> list[np.ndarray]:
    """Return the weights of `source` as `layer` takes them."""
    values = []
    for weight, stored in zip(layer.weights, source.get_weights(), strict=True):
        value = stored
        if len(weight.shape) == 5 and stored.ndim == 4:
            depth = weight.shape[0]
            transposed = isinstance(layer, keras.layers.Conv3DTranspose)
            taps = depth / layer.strides[0] if transposed else depth
            value = inflate_kernel(stored, depth, taps=taps)
        values.append(value)
    return values


def _differences(
    layers: dict[str, keras.layers.Layer], source: dict[str, keras.layers.Layer]
) -> list[str]:
    """Return a phrase for each layer that does not fit; layers without weights may differ."""
    weighted = {name for name, layer in (*layers.items(), *source.items()) if layer.weights}
    differences = []
    for name in dict.fromkeys((*layers, *source)):
        here, there = layers.get(name), source.get(name)
        if here and there:
            inflated = len(_shapes(here)) == len(_shapes(there)) and all(
                a == b or (len(a) == 5 and a[1:] == b)
                for a, b in zip(_shapes(here), _shapes(there), strict=True)
            )
            if not inflated:
                differences.append(
                    f"{name}: here {_format_shapes(here)}, there {_format_shapes(there)}"
                )
            elif _kind(here) != _kind(there):
                differences.append(f"{name}: here {_kind(here)}, there {_kind(there)}")
        elif name in weighted:
            differences.append(f"{name}: {'only here' if here else 'only there'}")
    return differences


def _shapes(layer: keras.layers.Layer) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in layer.weights]


def _format_shapes(layer: keras.layers.Layer) -> str:
    return " ".join(" x ".join(map(str, shape)) for shape in _shapes(layer)) or "no weights"


def _kind(layer: keras.layers.Layer) -> str:
    """Describe what a layer does with its weights, in the same words for slices and volumes."""
    config = layer.get_config()
    kind = type(layer).__name__.removesuffix("2D").removesuffix("3D")
    kind = kind.replace("2DTranspose", "Transpose").replace("3DTranspose", "Transpose")
    strides = config.get("strides")
    words = [kind, config.get("activation"), strides and f"stride {tuple(strides)[-1]}"]
    return " ".join(str(word) for word in words if word and word != "linear")


def _advice(path: Path, settings: ModelSettings, differences: list[str]) -> str:
    """Name the settings that would make it fit, as far as the run's own config says."""
    changed = list(_changed_settings(path, settings))
    advice = f"That run has {', '.join(changed)}: set it so. " if changed else ""
    heads = all(d.startswith(("head:", "probabilities:")) for d in differences)
    if heads and settings.init_part == "whole":
        return f"{advice}For another target start from the encoder: model.init_part=encoder."
    return (
        advice.strip()
        or "Set model.network, features, blocks, norm and the like as that run has them."
    )


def _changed_settings(path: Path, settings: ModelSettings) -> Iterable[str]:
    """Yield the settings of the run that `path` belongs to, where they differ from ours."""
    try:
        run = read_run(path.parents[1])
    except (UserError, IndexError):  # the file of no run, or of a run that cannot be read
        return
    theirs = run.experiment.model.model_dump(mode="json")
    ours = settings.model_dump(mode="json")
    if theirs["network"] != ours["network"]:  # the rest says little then
        yield f"model.network={theirs['network']}"
        return
    pairs = [(f"model.{name}", ours[name], value) for name, value in theirs.items()]
    pairs += [
        (f"model.pretrained.{name}", ours["pretrained"][name], value)
        for name, value in theirs["pretrained"].items()
    ]
    for name, mine, value in pairs:
        if name not in _MAY_DIFFER and mine != value:
            yield f"{name}={value}".replace(" ", "")
