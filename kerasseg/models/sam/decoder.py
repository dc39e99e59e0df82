"""SAM's mask decoder: a two-way transformer between prompts and image (Kirillov et al. 2023)."""

from typing import Any

import keras
from keras import ops

from kerasseg.models.sam.vit import Chain, build_in_turn

MASKS = 4
"""Masks of a prompt: the one, then three for prompts that may mean a whole or a part of it."""


@keras.saving.register_keras_serializable(package="kerasseg")
class MaskDecoder(keras.layers.Layer):
    """Turns an image's embedding and its prompts into masks, and says how good they are.

    Logits are sums of products, and losses sums over whole slices: the layer is to be built in
    float32. Weights are named as in Meta's files.

    Args:
        channels: C, the channels of the embedding.
        heads: Attention heads; they divide half of `channels`.
        hidden: Width of the perceptron of each block.
        depth: Blocks of the transformer.
    """

    def __init__(
        self,
        *,
        channels: int = 256,
        heads: int = 8,
        hidden: int = 2048,
        depth: int = 2,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._settings = {"channels": channels, "heads": heads, "hidden": hidden, "depth": depth}
        self.channels = channels
        policy = self.dtype_policy
        name = "transformer"
        self.blocks = [
            _TwoWayBlock(heads, hidden, first=i == 0, dtype=policy, name=f"{name}.layers.{i}")
            for i in range(depth)
        ]
        self.final_attention = _Attention(
            heads, channels // 2, dtype=policy, name=f"{name}.final_attn_token_to_image"
        )
        self.final_norm = keras.layers.LayerNormalization(
            epsilon=1e-5, dtype=policy, name=f"{name}.norm_final_attn"
        )
        double = {"kernel_size": 2, "strides": 2, "dtype": policy}
        self.upscaling = [
            keras.layers.Conv2DTranspose(channels // 4, name="output_upscaling.0", **double),
            keras.layers.LayerNormalization(epsilon=1e-6, dtype=policy, name="output_upscaling.1"),
            keras.layers.Activation("gelu", dtype=policy),
            keras.layers.Conv2DTranspose(
                channels // 8, activation="gelu", name="output_upscaling.3", **double
            ),
        ]
        self.mask_heads = [
            _Perceptron(
                channels, channels // 8, dtype=policy, name=f"output_hypernetworks_mlps.{mask}"
            )
            for mask in range(MASKS)
        ]
        self.iou_head = _Perceptron(channels, MASKS, dtype=policy, name="iou_prediction_head")

    def build(self, input_shape: Any) -> None:
        channels = self.channels

        def tokens(name: str, count: int) -> Any:
            return self.add_weight(
                shape=(count, channels), initializer="random_normal", name=f"{name}.weight"
            )

        self.iou_token = tokens("iou_token", 1)
        self.mask_tokens = tokens("mask_tokens", MASKS)
        rows = (None, None, channels)
        for layer in (*self.blocks, self.final_attention, self.final_norm):
            layer.build(rows)
        for head in (*self.mask_heads, self.iou_head):
            head.build((None, channels))
        build_in_turn(self.upscaling, (None, None, None, channels))

    def call(
        self, embedding: Any, prompts: Any, dense_prompt: Any, positions: Any
    ) -> tuple[Any, Any]:
        """Return logits (B, 4 n, 4 n, 4) of the masks, and the IoU (B, 4) expected of each.

        Args:
            embedding: Of the image, (B, n, n, C).
            prompts: Vectors (B, P, C) of points and boxes.
            dense_prompt: Prompt (B, n, n, C) for each place of the embedding.
            positions: The positions (1, n, n, C) of the embedding.
        """
        side, channels = embedding.shape[1], self.channels
        image = ops.reshape(embedding + dense_prompt, (-1, side * side, channels))
        places = ops.reshape(positions, (1, side * side, channels))
        own = ops.concatenate([self.iou_token, self.mask_tokens], axis=0)[None]
        own = own + ops.zeros_like(embedding[:, :1, 0, :])
        asked = ops.concatenate([own, prompts], axis=1)
        tokens = asked
        for block in self.blocks:
            tokens, image = block(tokens, image, asked, places)
        attended = self.final_attention(tokens + asked, image + places, image)
        tokens = self.final_norm(tokens + attended)
        features = ops.reshape(image, (-1, side, side, channels))
        for layer in self.upscaling:
            features = layer(features)
        kernels = [head(tokens[:, 1 + mask]) for mask, head in enumerate(self.mask_heads)]
        masks = ops.einsum("bhwc,bmc->bhwm", features, ops.stack(kernels, axis=1))
        return masks, self.iou_head(tokens[:, 0])

    def compute_output_shape(
        self,
        embedding_shape: Any,
        prompts_shape: Any,
        dense_prompt_shape: Any,
        positions_shape: Any,
    ) -> Any:
        batch, side = embedding_shape[0], 4 * embedding_shape[1]
        return (batch, side, side, MASKS), (batch, MASKS)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self._settings}


class _TwoWayBlock(keras.layers.Layer):
    """Tokens attend to each other and to the image, and the image then attends to the tokens."""

    def __init__(self, heads: int, hidden: int, *, first: bool, **options: Any) -> None:
        super().__init__(**options)
        self.heads = heads
        self.hidden = hidden
        self.first = first

    def build(self, input_shape: Any) -> None:
        width, policy = input_shape[-1], self.dtype_policy

        def attention(name: str, inner: int) -> _Attention:
            return _Attention(self.heads, inner, dtype=policy, name=name)

        self.self_attention = attention("self_attn", width)
        self.to_image = attention("cross_attn_token_to_image", width // 2)
        self.to_tokens = attention("cross_attn_image_to_token", width // 2)
        self.norms = [
            keras.layers.LayerNormalization(epsilon=1e-5, dtype=policy, name=f"norm{i}")
            for i in range(1, 5)
        ]
        self.lin1 = keras.layers.Dense(self.hidden, "relu", dtype=policy, name="mlp.lin1")
        self.lin2 = keras.layers.Dense(width, dtype=policy, name="mlp.lin2")
        for layer in (self.self_attention, self.to_image, self.to_tokens, *self.norms, self.lin1):
            layer.build(input_shape)
        self.lin2.build((*input_shape[:-1], self.hidden))

    def call(self, tokens: Any, image: Any, asked: Any, places: Any) -> tuple[Any, Any]:
        norm1, norm2, norm3, norm4 = self.norms
        if self.first:  # the tokens are the prompts themselves, and there is nothing to skip
            tokens = self.self_attention(tokens, tokens, tokens)
        else:
            query = tokens + asked
            tokens = tokens + self.self_attention(query, query, tokens)
        tokens = norm1(tokens)
        tokens = norm2(tokens + self.to_image(tokens + asked, image + places, image))
        tokens = norm3(tokens + self.lin2(self.lin1(tokens)))
        image = norm4(image + self.to_tokens(image + places, tokens + asked, tokens))
        return tokens, image


class _Attention(keras.layers.Layer):
    """Attention of queries (B, Q, C) to keys and values (B, K, C) through `inner` channels."""

    def __init__(self, heads: int, inner: int, **options: Any) -> None:
        super().__init__(**options)
        self.heads = heads
        self.inner = inner

    def build(self, input_shape: Any) -> None:
        policy = self.dtype_policy
        self.q_proj, self.k_proj, self.v_proj = (
            keras.layers.Dense(self.inner, dtype=policy, name=f"{part}_proj") for part in "qkv"
        )
        self.out_proj = keras.layers.Dense(input_shape[-1], dtype=policy, name="out_proj")
        for layer in (self.q_proj, self.k_proj, self.v_proj):
            layer.build(input_shape)
        self.out_proj.build((*input_shape[:-1], self.inner))

    def call(self, query: Any, key: Any, value: Any) -> Any:
        depth = self.inner // self.heads

        def in_heads(x: Any) -> Any:
            x = ops.reshape(x, (-1, x.shape[1], self.heads, depth))
            return ops.transpose(x, (0, 2, 1, 3))

        query, key = in_heads(self.q_proj(query)), in_heads(self.k_proj(key))
        scores = ops.matmul(query * depth**-0.5, ops.transpose(key, (0, 1, 3, 2)))
        x = ops.matmul(ops.softmax(scores), in_heads(self.v_proj(value)))
        x = ops.transpose(x, (0, 2, 1, 3))
        return self.out_proj(ops.reshape(x, (-1, x.shape[1], self.inner)))


class _Perceptron(Chain):
    """Three dense layers, (B, C) -> (B, outputs)."""

    def __init__(self, width: int, outputs: int, **options: Any) -> None:
        super().__init__(**options)
        policy = self.dtype_policy
        self.parts = [
            keras.layers.Dense(width, "relu", dtype=policy, name="layers.0"),
            keras.layers.Dense(width, "relu", dtype=policy, name="layers.1"),
            keras.layers.Dense(outputs, dtype=policy, name="layers.2"),
        ]
