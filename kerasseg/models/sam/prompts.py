"""SAM's prompt encoder: points, boxes and masks as vectors (Kirillov et al. 2023)."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from kerasseg.models.sam.vit import build_in_turn

BACKGROUND, FOREGROUND, NO_POINT = 0, 1, -1
"""Labels of points; a point without meaning fills up the points of an image."""


class OfSquare(keras.layers.Layer):
    """A layer of squares with sides of `side` pixels, which slices are scaled to."""

    def __init__(self, side: int, **options: Any) -> None:
        super().__init__(**options)
        self.side = side

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "side": self.side}


@keras.saving.register_keras_serializable(package="kerasseg")
class PromptEncoder(OfSquare):
    """Turns prompts into vectors for the mask decoder.

    Positions are sines and cosines of random frequencies (Tancik et al. 2020, arXiv:2006.10739),
    which float16 cannot tell apart: the layer is to be built in float32. Weights are named as in
    Meta's files.

    Args:
        side: Side of the square image in pixels, in which prompts are given.
        grid: Side of its embedding; a mask prompt has four times that.
        channels: C, the channels of the embedding.
        mask_channels: Channels that a mask prompt has before the last convolution.
    """

    def __init__(
        self, side: int, grid: int, *, channels: int = 256, mask_channels: int = 16, **options: Any
    ) -> None:
        super().__init__(side, **options)
        self.grid = grid
        self.channels = channels
        self.mask_channels = mask_channels
        policy = self.dtype_policy

        def shrink(channels: int, place: int) -> list[keras.layers.Layer]:
            name = f"mask_downscaling.{place}"
            norm = f"mask_downscaling.{place + 1}"
            return [
                keras.layers.Conv2D(channels, 2, strides=2, dtype=policy, name=name),
                keras.layers.LayerNormalization(epsilon=1e-6, dtype=policy, name=norm),
                keras.layers.Activation("gelu", dtype=policy),
            ]

        self.mask_downscaling = [
            *shrink(mask_channels // 4, 0),
            *shrink(mask_channels, 3),
            keras.layers.Conv2D(channels, 1, dtype=policy, name="mask_downscaling.6"),
        ]

    def build(self, input_shape: Any) -> None:
        def vector(name: str) -> Any:
            return self.add_weight(
                shape=(1, self.channels), initializer="random_normal", name=f"{name}.weight"
            )

        self.frequencies = self.add_weight(
            shape=(2, self.channels // 2),
            initializer=keras.initializers.RandomNormal(stddev=1.0),
            trainable=False,
            name="pe_layer.positional_encoding_gaussian_matrix",
        )
        self.kinds = [vector(f"point_embeddings.{kind}") for kind in range(4)]
        self.not_a_point = vector("not_a_point_embed")
        self.no_mask = vector("no_mask_embed")
        build_in_turn(self.mask_downscaling, (None, 4 * self.grid, 4 * self.grid, 1))

    def call(
        self,
        embedding: Any,
        boxes: Any = None,
        points: Any = None,
        labels: Any = None,
        masks: Any = None,
    ) -> tuple[Any, Any, Any]:
        """Encode the prompts of a batch; what is None is not prompted.

        Returns vectors (B, P, C) of points and boxes, the prompt (B, n, n, C) that is added to the
        embedding, and the positions (1, n, n, C) of the embedding.

        Args:
            embedding: The image's (B, n, n, C); only its shape counts.
            boxes: First and last corner (B, N, 4) as x1, y1, x2, y2, in pixels of the image.
            points: Places (B, M, 2) as x, y, in pixels of the image.
            labels: What the points are (B, M): FOREGROUND, BACKGROUND or NO_POINT.
            masks: Logits (B, 4 n, 4 n, 1) of a mask.
        """
        none = ops.zeros_like(embedding[:, :1, 0, :])  # (B, 1, C)
        vectors = [none[:, :0]]
        if points is not None:
            points, labels = ops.cast(points, none.dtype), ops.cast(labels, "int32")
            if boxes is None:  # as SAM was trained: points alone end in one that is none
                points = ops.pad(points, ((0, 0), (0, 1), (0, 0)))
                labels = ops.pad(labels, ((0, 0), (0, 1)), constant_values=NO_POINT)
            vectors.append(self._points(points, labels))
        if boxes is not None:
            corners = ops.reshape(ops.cast(boxes, none.dtype), (-1, boxes.shape[1], 2, 2))
            kinds = ops.concatenate(self.kinds[2:], axis=0)
            corners = self._encode((corners + 0.5) / self.side) + kinds
            vectors.append(ops.reshape(corners, (-1, 2 * boxes.shape[1], self.channels)))
        if masks is None:
            dense = ops.zeros_like(embedding) + ops.reshape(self.no_mask, (1, 1, 1, -1))
        else:
            dense = ops.cast(masks, none.dtype)
            for layer in self.mask_downscaling:
                dense = layer(dense)
        centres = (np.arange(self.grid, dtype="float32") + 0.5) / self.grid
        y, x = np.meshgrid(centres, centres, indexing="ij")
        return ops.concatenate(vectors, axis=1), dense, self._encode(np.stack([x, y], -1)[None])

    def _points(self, points: Any, labels: Any) -> Any:
        labels = labels[..., None]
        encoded = self._encode((points + 0.5) / self.side)
        encoded = ops.where(ops.equal(labels, NO_POINT), self.not_a_point, encoded)
        for kind in (BACKGROUND, FOREGROUND):
            encoded = encoded + ops.where(ops.equal(labels, kind), self.kinds[kind], 0.0)
        return encoded

    def _encode(self, places: Any) -> Any:
        """Encode places (…, 2) as x, y in [0, 1]: (…, C)."""
        angles = 2 * math.pi * ops.matmul(2.0 * places - 1.0, self.frequencies)
        return ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)

    def compute_output_shape(
        self,
        embedding_shape: Any,
        boxes_shape: Any = None,
        points_shape: Any = None,
        labels_shape: Any = None,
        masks_shape: Any = None,
    ) -> Any:
        count = 2 * boxes_shape[1] if boxes_shape else 0
        if points_shape:
            count += points_shape[1] + (boxes_shape is None)
        vectors = (embedding_shape[0], count, self.channels)
        return vectors, embedding_shape, (1, *embedding_shape[1:])

    def get_config(self) -> dict[str, Any]:
        names = ("grid", "channels", "mask_channels")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable(package="kerasseg")
class BoxOfMask(OfSquare):
    """Gives the box (B, 1, 4) around each mask (B, h, w, 1), in pixels of the square.

    Args:
        side: Side of the square that slices are scaled to.
        margin: How far a box lies outside of its mask, in pixels of the mask. In training each side
            lies there by 0 to twice that, at random, but never outside of the slice.
    """

    def __init__(self, side: int, margin: float, **options: Any) -> None:
        super().__init__(side, **options)
        self.margin = margin
        self.seeds = keras.random.SeedGenerator()

    def call(self, tumour: Any, training: bool = False) -> Any:
        # Not `mask`, which means something else to Keras.
        inside = ops.cast(tumour[..., 0] > 0.5, "float32")
        moves = ops.zeros_like(inside[:, 0, :1]) + ops.full((1, 4), self.margin)
        if training:
            moves *= keras.random.uniform(ops.shape(moves), 0.0, 2.0, seed=self.seeds)
        low: list[Any] = []
        high: list[Any] = []
        for axis, (size, used) in enumerate(used_in_square(tumour, self.side)):
            line = ops.max(inside, axis=2 - axis)
            first = ops.cast(ops.argmax(line, axis=1), "float32") - moves[:, axis]
            last = size - 1 - ops.cast(ops.argmax(ops.flip(line, axis=1), axis=1), "float32")
            corners = ops.maximum(first, 0.0), ops.minimum(last + moves[:, 2 + axis], size - 1)
            for side, place in zip((low, high), corners, strict=True):
                side.append((place + 0.5) * (used / size) - 0.5)
        return ops.stack([*reversed(low), *reversed(high)], axis=-1)[:, None]

    def compute_output_shape(self, tumour_shape: Any) -> Any:
        return (tumour_shape[0], 1, 4)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "margin": self.margin}


@keras.saving.register_keras_serializable(package="kerasseg")
class PointsOfMask(OfSquare):
    """Draws points of each mask (B, h, w, 1): places (B, N, 2) in the square, and labels (B, N).

    They are others in each step of training, and always the same ones otherwise. Where a mask has
    fewer than N pixels, the label of the rest is NO_POINT.
    """

    def __init__(self, side: int, count: int, **options: Any) -> None:
        super().__init__(side, **options)
        self.count = count
        self.seeds = keras.random.SeedGenerator()

    def call(self, tumour: Any, training: bool = False) -> tuple[Any, Any]:
        flat = ops.reshape(tumour, (-1, ops.shape(tumour)[1] * ops.shape(tumour)[2]))
        # Every slice of a batch is drawn with the same numbers: what it gets follows from it alone.
        seed = self.seeds if training else 0
        draws = keras.random.uniform(ops.shape(flat if training else flat[:1]), seed=seed)
        found, places = ops.top_k(ops.where(flat > 0.5, 1.0 + draws, 0.0), self.count)
        width = ops.shape(tumour)[2]
        pixels = [ops.cast(p, "float32") for p in (places // width, places % width)]
        sizes = used_in_square(tumour, self.side)
        y, x = ((p + 0.5) * (used / n) - 0.5 for p, (n, used) in zip(pixels, sizes, strict=True))
        labels = ops.where(found > 0.5, float(FOREGROUND), float(NO_POINT))
        return ops.stack([x, y], axis=-1), labels

    def compute_output_shape(self, tumour_shape: Any) -> Any:
        return (tumour_shape[0], self.count, 2), (tumour_shape[0], self.count)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "count": self.count}


@keras.saving.register_keras_serializable(package="kerasseg")
class WherePrompted(keras.layers.Layer):
    """Gives the logits (B, h, w, K) of slices whose mask (B, h, w, 1) is not empty, else -20."""

    def call(self, inputs: Any) -> Any:
        logits, mask = inputs
        return ops.where(ops.any(mask > 0.5, axis=(1, 2, 3), keepdims=True), logits, -20.0)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape[0]


def used_in_square(image: Any, side: int) -> list[tuple[Any, Any]]:
    """Return the size of slices (B, h, w, C), and what they have in a square, along both axes."""
    sizes = [ops.cast(size, "float32") for size in ops.shape(image)[1:3]]
    longest = ops.maximum(*sizes)
    return [(size, ops.maximum(ops.floor(size * side / longest + 0.5), 1.0)) for size in sizes]
