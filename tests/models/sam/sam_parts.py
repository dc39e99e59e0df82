"""A SAM so small that it runs in no time, and weights that follow from their names alone."""

import zlib
from typing import Any

import keras
import numpy as np

from kerasseg.models.sam.decoder import MaskDecoder
from kerasseg.models.sam.prompts import PromptEncoder
from kerasseg.models.sam.tiny_vit import TinyVit
from kerasseg.models.sam.vit import VisionTransformer
from kerasseg.models.sam.weights import named_weights

SIDE, CHANNELS = 64, 32
VIT = {"width": 24, "depth": 2, "heads": 2, "global_blocks": (1,), "window": 3}
VIT_B = {"width": 768, "depth": 12, "heads": 12, "global_blocks": (2, 5, 8, 11), "window": 14}
TINY = {"widths": (8, 8, 12, 16), "depths": (1, 1, 1, 1), "heads": (1, 2, 2, 4)}
DECODER = {"heads": 2, "hidden": 20}
PROMPTS = ("boxes", "points", "both", "masks", "none")
POINTS = np.array([[[5.0, 9.0], [40.0, 33.0]], [[60.0, 2.0], [11.0, 50.0]]], np.float32)
LABELS = np.array([[1, 0], [1, 1]])
BOXES = np.array([[[4.0, 3.0, 50.0, 60.0]], [[20.0, 8.0, 31.0, 40.0]]], np.float32)


def parts(kind: str, side: int = SIDE) -> dict[str, keras.layers.Layer]:
    """The three layers, built, of a tiny SAM with the encoder `vit` or `tiny_vit`, or of ViT-B."""
    encoder: keras.layers.Layer
    small = {} if kind == "vit_b" else {"channels": CHANNELS}
    if kind == "tiny_vit":
        encoder = TinyVit(side, **small, **TINY, name="image_encoder")
    else:
        options = VIT_B if kind == "vit_b" else VIT
        encoder = VisionTransformer(side, **small, **options, name="image_encoder")
    masks = {"mask_channels": 8} if small else {}
    prompts = PromptEncoder(side, encoder.grid, **small, **masks, name="prompt_encoder")
    decoder = MaskDecoder(**small, **(DECODER if small else {}), name="mask_decoder")
    embedding = encoder(keras.Input((side, side, 3)))
    decoder(embedding, *prompts(embedding))
    return {layer.name: layer for layer in (encoder, prompts, decoder)}


def meta_tensors(
    layers: dict[str, keras.layers.Layer], largest_sum: float = np.inf
) -> dict[str, np.ndarray]:
    """A tensor for each weight, in Meta's layout; its numbers follow from its name.

    Kernels of many inputs are so small that their sums deviate by `largest_sum` at most.
    """
    tensors = {}
    for name, weight in named_weights(layers):
        shape = tuple(weight.shape)
        if weight.path.endswith("/kernel") and len(shape) == 4:
            depthwise = shape[-1] == 1
            shape = tuple(shape[i] for i in ((2, 3, 0, 1) if depthwise else (3, 2, 0, 1)))
        elif weight.path.endswith("/kernel"):
            shape = shape[::-1]
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        inputs = np.prod(shape[1:]) if weight.path.endswith("/kernel") else 1
        values = rng.normal(size=shape) * min(0.3, largest_sum / np.sqrt(inputs))
        if name.endswith("running_var") or weight.path.endswith("/gamma"):
            values = np.abs(values) + 0.7
        tensors[name] = values.astype(np.float32)
    return tensors


def images(side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(3).random((2, side, side, 3)).astype(np.float32)


def mask_prompt(grid: int) -> np.ndarray:
    return np.random.default_rng(4).normal(size=(2, 4 * grid, 4 * grid, 1)).astype(np.float32)


def prompt(kind: str, side: int, grid: int) -> dict[str, Any]:
    """The arguments of `PromptEncoder` for a kind of prompt, all over a square of this side."""
    given: dict[str, Any] = {}
    if kind in ("boxes", "both", "masks"):
        given["boxes"] = BOXES * (side / SIDE)
    if kind in ("points", "both"):
        given |= {"points": POINTS * (side / SIDE), "labels": LABELS}
    if kind == "masks":
        given["masks"] = mask_prompt(grid)
    return given


def segment(
    layers: dict[str, keras.layers.Layer], kind: str, embedding: np.ndarray | None = None
) -> tuple[np.ndarray, ...]:
    """Embedding, unless it is given, masks and IoU for a kind of prompt."""
    encoder = layers["image_encoder"]
    side = encoder._settings["side"]
    if embedding is None:
        embedding = encoder(images(side))
    prompts = layers["prompt_encoder"](embedding, **prompt(kind, side, encoder.grid))
    masks, iou = layers["mask_decoder"](embedding, *prompts)
    return tuple(np.asarray(x) for x in (embedding, masks, iou))
