"""SAM's image encoder: a Vision Transformer with attention in windows, and its neck.

Kirillov et al. 2023 (arXiv:2304.02643), Li et al. 2022 (ViTDet, arXiv:2203.16527). Layers and
weights are named as in Meta's files, so that `weights.py` finds every tensor by its name.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

PATCH = 16
"""Pixels along each side of the image that become one token."""


@keras.saving.register_keras_serializable(package="kerasseg")
class VisionTransformer(keras.layers.Layer):
    """Turns square images (B, S, S, 3) in [0, 1] into embeddings (B, S / 16, S / 16, C).

    With the defaults it is ViT-B. Most blocks attend within windows; those of `global_blocks`
    attend to the whole image.

    Args:
        side: S, the side of the image in pixels, a multiple of 16.
        width: Channels of the tokens.
        depth: Number of blocks.
        heads: Attention heads of each block; they divide `width`.
        global_blocks: Blocks without windows, counted from 0.
        window: Side of a window in tokens.
        channels: C, the channels of the embedding.
        lora_rank: Rank of the low-rank matrices that are added to the kernels of queries, keys and
            values (Hu et al. 2021, arXiv:2106.09685); 0 for none. They are merged when saved.
    """

    def __init__(
        self,
        side: int,
        *,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        global_blocks: Sequence[int] = (2, 5, 8, 11),
        window: int = 14,
        channels: int = 256,
        lora_rank: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._settings = {
            "side": side,
            "width": width,
            "depth": depth,
            "heads": heads,
            "global_blocks": list(global_blocks),
            "window": window,
            "channels": channels,
            "lora_rank": lora_rank,
        }
        self.width = width
        self.global_blocks = tuple(global_blocks)
        self.grid = side // PATCH
        policy = self.dtype_policy
        self.patch_embed = keras.layers.Conv2D(
            width, PATCH, strides=PATCH, dtype=policy, name="patch_embed.proj"
        )
        self.blocks = [
            _Block(
                heads,
                self.grid if index in global_blocks else window,
                whole=index in global_blocks,
                lora_rank=lora_rank,
                dtype=policy,
                name=f"blocks.{index}",
            )
            for index in range(depth)
        ]
        self.neck = Neck(channels, dtype=policy, name="neck")

    def build(self, input_shape: Any) -> None:
        self.pos_embed = self.add_weight(
            shape=(1, self.grid, self.grid, self.width),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            name="pos_embed",
        )
        self.patch_embed.build(input_shape)
        tokens = (None, self.grid, self.grid, self.width)
        for block in self.blocks:
            block.build(tokens)
        self.neck.build(tokens)

    def call(self, image: Any) -> Any:
        x = self.patch_embed(image) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.neck(x)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], self.grid, self.grid, self.neck.channels)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self._settings}


class Chain(keras.layers.Layer):
    """Layers that follow each other, which a subclass puts into `parts`."""

    parts: Sequence[keras.layers.Layer]

    def build(self, input_shape: Any) -> None:
        build_in_turn(self.parts, input_shape)

    def call(self, x: Any) -> Any:
        for part in self.parts:
            x = part(x)
        return x


class Neck(Chain):
    """Turns tokens (B, N, N, width) into embeddings (B, N, N, channels) by two convolutions."""

    def __init__(self, channels: int, **options: Any) -> None:
        super().__init__(**options)
        self.channels = channels
        policy = self.dtype_policy
        self.parts = [
            keras.layers.Conv2D(channels, 1, use_bias=False, dtype=policy, name="0"),
            keras.layers.LayerNormalization(epsilon=1e-6, dtype=policy, name="1"),
            keras.layers.Conv2D(
                channels, 3, padding="same", use_bias=False, dtype=policy, name="2"
            ),
            keras.layers.LayerNormalization(epsilon=1e-6, dtype=policy, name="3"),
        ]


class _Block(keras.layers.Layer):
    """Attention within windows, or in the whole image, and a perceptron, each with a skip."""

    def __init__(
        self, heads: int, window: int, *, whole: bool, lora_rank: int, **options: Any
    ) -> None:
        super().__init__(**options)
        self.window = 0 if whole else window
        policy = self.dtype_policy
        self.norm1 = keras.layers.LayerNormalization(epsilon=1e-6, dtype=policy, name="norm1")
        self.attn = _Attention(heads, window, lora_rank, dtype=policy, name="attn")
        self.norm2 = keras.layers.LayerNormalization(epsilon=1e-6, dtype=policy, name="norm2")

    def build(self, input_shape: Any) -> None:
        width, policy = input_shape[-1], self.dtype_policy
        self.lin1 = keras.layers.Dense(4 * width, "gelu", dtype=policy, name="mlp.lin1")
        self.lin2 = keras.layers.Dense(width, dtype=policy, name="mlp.lin2")
        for layer in (self.norm1, self.attn, self.norm2, self.lin1):
            layer.build(input_shape)
        self.lin2.build((*input_shape[:-1], 4 * width))

    def call(self, x: Any) -> Any:
        attended = self.norm1(x)
        if self.window:
            parts = to_windows(attended, self.window)
            attended = from_windows(self.attn(parts), x.shape[1])
        else:
            attended = self.attn(attended)
        x = x + attended
        return x + self.lin2(self.lin1(self.norm2(x)))


class _Attention(keras.layers.Layer):
    """Self-attention of (B, n, n, width) with relative positions along both axes."""

    def __init__(self, heads: int, side: int, lora_rank: int, **options: Any) -> None:
        super().__init__(**options)
        self.heads = heads
        self.side = side
        self.lora_rank = lora_rank
        place = np.arange(side)
        self.offsets = place[:, None] - place + side - 1

    def build(self, input_shape: Any) -> None:
        width, policy = input_shape[-1], self.dtype_policy
        self.head_width = width // self.heads
        self.qkv = keras.layers.Dense(3 * width, dtype=policy, name="qkv")
        self.proj = keras.layers.Dense(width, dtype=policy, name="proj")
        for layer in (self.qkv, self.proj):
            layer.build(input_shape)
        if self.lora_rank:
            self.qkv.enable_lora(self.lora_rank)
        shape = (2 * self.side - 1, self.head_width)
        self.rel_pos_h = self.add_weight(shape=shape, initializer="zeros", name="rel_pos_h")
        self.rel_pos_w = self.add_weight(shape=shape, initializer="zeros", name="rel_pos_w")

    def call(self, x: Any) -> Any:
        n, tokens, width = self.side, self.side**2, self.heads * self.head_width
        qkv = ops.reshape(self.qkv(x), (-1, tokens, 3, self.heads, self.head_width))
        query, key, value = ops.unstack(ops.transpose(qkv, (2, 0, 3, 1, 4)), axis=0)
        scores = ops.matmul(query * self.head_width**-0.5, ops.transpose(key, (0, 1, 3, 2)))
        # (n, n, head_width): row and column of a query against those of a key
        rows = ops.take(self.rel_pos_h, self.offsets, axis=0)
        columns = ops.take(self.rel_pos_w, self.offsets, axis=0)
        places = ops.reshape(query, (-1, self.heads, n, n, self.head_width))
        by_row = ops.einsum("bhijc,ikc->bhijk", places, rows)
        by_column = ops.einsum("bhijc,jkc->bhijk", places, columns)
        scores = ops.reshape(scores, (-1, self.heads, n, n, n, n))
        scores = scores + by_row[..., None] + by_column[..., None, :]
        scores = ops.reshape(scores, (-1, self.heads, tokens, tokens))
        x = ops.matmul(ops.softmax(scores), value)
        x = ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, n, n, width))
        return self.proj(x)


def build_in_turn(layers: Sequence[keras.layers.Layer], input_shape: Any) -> None:
    """Build layers that follow each other, so that their names are within the caller's."""
    for place, layer in enumerate(layers, start=1):
        layer.build(input_shape)
        if place < len(layers):
            input_shape = layer.compute_output_shape(input_shape)


def to_windows(x: Any, window: int) -> Any:
    """Cut (B, N, N, C), padded with zeros at its end, into windows (B n n, window, window, C)."""
    side, channels = x.shape[1], x.shape[-1]
    count = -(-side // window)
    after = count * window - side
    if after:
        x = ops.pad(x, ((0, 0), (0, after), (0, after), (0, 0)))
    x = ops.reshape(x, (-1, count, window, count, window, channels))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, window, window, channels))


def from_windows(x: Any, side: int) -> Any:
    """Put windows (B n n, window, window, C) together again and crop them to (B, side, side, C)."""
    window, channels = x.shape[1], x.shape[-1]
    count = -(-side // window)
    x = ops.reshape(x, (-1, count, count, window, window, channels))
    x = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, *[count * window] * 2, channels))
    return x[:, :side, :side]
