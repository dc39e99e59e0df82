"""SAM's prompt encoder: points, boxes and masks as vectors (Kirillov et al. 2023)."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

BACKGROUND, FOREGROUND, NO_POINT = 0, 1, -1
"""Labels of points; a point without meaning fills up the points of an image."""


@keras.saving.register_keras_serializable(package="kerasseg")
class PromptEncoder(keras.layers.Layer):
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
        self,
        side: int,
        grid: int,
        *,
        channels: int = 256,
        mask_channels: int = 16,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.side = side
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
        shape: Any = (None, 4 * self.grid, 4 * self.grid, 1)
        for layer in self.mask_downscaling:
            layer.build(shape)
            shape = layer.compute_output_shape(shape)

    def call(
        self,
        embedding: Any,
        boxes: Any = None,
        points: Any = None,
        labels: Any = None,
        masks: Any = None,
    ) -> tuple[Any, Any, Any]:
        """Encode the prompts of a batch; what is None is not prompted.

        Args:
            embedding: The image's (B, n, n, C); only its shape counts.
            boxes: First and last corner (B, N, 4) as x1, y1, x2, y2, in pixels of the image.
            points: Places (B, M, 2) as x, y, in pixels of the image.
            labels: What the points are (B, M): FOREGROUND, BACKGROUND or NO_POINT.
            masks: Logits (B, 4 n, 4 n, 1) of a mask.

        Returns:
            Vectors (B, P, C) of points and boxes, the prompt (B, n, n, C) that is added to the
            embedding, and the positions (1, n, n, C) of the embedding.
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
        names = ("side", "grid", "channels", "mask_channels")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
