"""LiteMedSAM's image encoder: TinyViT with little downsampling, and SAM's neck.

Wu et al. 2022 (TinyViT, arXiv:2207.10666) and Ma et al. 2024 (MedSAM, Nature Communications 15,
654), whose light version keeps 64 x 64 embeddings of 256 x 256 images. Layers are named as in
LiteMedSAM's file, so that `weights.py` finds every tensor by its name.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kerasseg.models.sam.vit import Neck, build_in_turn, from_windows, to_windows

STRIDE = 4
"""Pixels of the image per embedding, along each side."""


@keras.saving.register_keras_serializable(package="kerasseg")
class TinyVit(keras.layers.Layer):
    """Turns square images (B, S, S, 3) in [0, 1] into embeddings (B, S / 4, S / 4, C).

    With the defaults it is LiteMedSAM's. The first stage has convolutions only; the others attend
    within windows, whose weights do not depend on S. Batch normalisation always runs on its stored
    statistics: batches of a fine-tuning are too small for their own.

    Args:
        side: S, the side of the image in pixels, a multiple of 4.
        widths: Channels of the four stages.
        depths: Blocks of the stages.
        heads: Attention heads of the stages; those of the first are not used.
        windows: Side of the windows of the stages; that of the first is not used.
        channels: C, the channels of the embedding.
    """

    def __init__(
        self,
        side: int,
        *,
        widths: Sequence[int] = (64, 128, 160, 320),
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (2, 4, 5, 10),
        windows: Sequence[int] = (7, 7, 14, 7),
        channels: int = 256,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._settings = {
            "side": side,
            "widths": list(widths),
            "depths": list(depths),
            "heads": list(heads),
            "windows": list(windows),
            "channels": channels,
        }
        policy = self.dtype_policy
        self.grid = side // STRIDE
        self.stem = [
            _Convolution(widths[0] // 2, dtype=policy, name="patch_embed.seq.0"),
            _Convolution(widths[0], dtype=policy, name="patch_embed.seq.2"),
        ]
        self.stages: list[keras.layers.Layer] = []
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            if stage:
                stride, name = 2 if stage < 3 else 1, f"layers.{stage - 1}.downsample"
                self.stages.append(_Merging(width, stride=stride, dtype=policy, name=name))
            for index in range(depth):
                name = f"layers.{stage}.blocks.{index}"
                self.stages.append(
                    _Block(heads[stage], windows[stage], dtype=policy, name=name)
                    if stage
                    else _ConvolutionBlock(dtype=policy, name=name)
                )
        self.neck = Neck(channels, dtype=policy, name="neck")

    @property
    def blocks(self) -> list[keras.layers.Layer]:
        """The blocks of all stages in their order."""
        return [layer for layer in self.stages if not isinstance(layer, _Merging)]

    def build(self, input_shape: Any) -> None:
        build_in_turn([*self.stem, *self.stages, self.neck], input_shape)

    def call(self, image: Any) -> Any:
        first, second = self.stem
        x = second(ops.gelu(first(image), approximate=False))
        for layer in self.stages:
            x = layer(x)
        return self.neck(x)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], self.grid, self.grid, self.neck.channels)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self._settings}


class _Convolution(keras.layers.Layer):
    """A convolution without bias and its batch normalisation, named c and bn."""

    def __init__(
        self,
        channels: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        depthwise: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        policy = self.dtype_policy
        self.stride = stride
        # PyTorch pads both sides alike, Keras's "same" only the end where the stride is 2.
        self.pad = kernel // 2
        shape = {"strides": stride, "use_bias": False, "dtype": policy, "name": "c"}
        self.c = (
            keras.layers.DepthwiseConv2D(kernel, **shape)
            if depthwise
            else keras.layers.Conv2D(channels, kernel, **shape)
        )
        self.bn = keras.layers.BatchNormalization(epsilon=1e-5, dtype=policy, name="bn")

    def build(self, input_shape: Any) -> None:
        build_in_turn([self.c, self.bn], self._padded(input_shape))

    def _padded(self, shape: Any) -> tuple[int | None, ...]:
        height, width = (n and n + 2 * self.pad for n in shape[1:3])
        return (shape[0], height, width, shape[3])

    def call(self, x: Any) -> Any:
        if self.pad:
            x = ops.pad(x, ((0, 0), *[(self.pad, self.pad)] * 2, (0, 0)))
        return self.bn(self.c(x), training=False)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.c.compute_output_shape(self._padded(input_shape))


class _ConvolutionBlock(keras.layers.Layer):
    """MobileNet's inverted bottleneck with a skip (Sandler et al. 2018, arXiv:1801.04381)."""

    def build(self, input_shape: Any) -> None:
        width, policy = input_shape[-1], self.dtype_policy
        self.conv1 = _Convolution(4 * width, dtype=policy, name="conv1")
        self.conv2 = _Convolution(4 * width, 3, depthwise=True, dtype=policy, name="conv2")
        self.conv3 = _Convolution(width, dtype=policy, name="conv3")
        build_in_turn([self.conv1, self.conv2, self.conv3], input_shape)

    def call(self, x: Any) -> Any:
        hidden = ops.gelu(self.conv1(x), approximate=False)
        hidden = ops.gelu(self.conv2(hidden), approximate=False)
        return ops.gelu(self.conv3(hidden) + x, approximate=False)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


class _Merging(keras.layers.Layer):
    """Three convolutions to more channels, the second with a stride."""

    def __init__(self, width: int, *, stride: int, **options: Any) -> None:
        super().__init__(**options)
        policy = self.dtype_policy
        self.conv1 = _Convolution(width, dtype=policy, name="conv1")
        self.conv2 = _Convolution(
            width, 3, stride=stride, depthwise=True, dtype=policy, name="conv2"
        )
        self.conv3 = _Convolution(width, dtype=policy, name="conv3")

    def build(self, input_shape: Any) -> None:
        build_in_turn([self.conv1, self.conv2, self.conv3], input_shape)

    def call(self, x: Any) -> Any:
        x = ops.gelu(self.conv1(x), approximate=False)
        x = ops.gelu(self.conv2(x), approximate=False)
        return self.conv3(x)

    def compute_output_shape(self, input_shape: Any) -> Any:
        for layer in (self.conv1, self.conv2, self.conv3):
            input_shape = layer.compute_output_shape(input_shape)
        return input_shape


class _Block(keras.layers.Layer):
    """Attention within windows, a depthwise convolution, and a perceptron."""

    def __init__(self, heads: int, window: int, **options: Any) -> None:
        super().__init__(**options)
        self.window = window
        self.attn = _Attention(heads, window, dtype=self.dtype_policy, name="attn")

    def build(self, input_shape: Any) -> None:
        width, policy = input_shape[-1], self.dtype_policy
        self.local_conv = _Convolution(width, 3, depthwise=True, dtype=policy, name="local_conv")
        self.norm = keras.layers.LayerNormalization(epsilon=1e-5, dtype=policy, name="mlp.norm")
        self.fc1 = keras.layers.Dense(4 * width, "gelu", dtype=policy, name="mlp.fc1")
        self.fc2 = keras.layers.Dense(width, dtype=policy, name="mlp.fc2")
        self.attn.build((None, self.window, self.window, width))
        build_in_turn([self.local_conv, self.norm, self.fc1, self.fc2], input_shape)

    def call(self, x: Any) -> Any:
        x = x + from_windows(self.attn(to_windows(x, self.window)), x.shape[1])
        x = self.local_conv(x)
        return x + self.fc2(self.fc1(self.norm(x)))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


class _Attention(keras.layers.Layer):
    """Self-attention of a window (B, w, w, C) with a bias for each distance of two tokens."""

    def __init__(self, heads: int, window: int, **options: Any) -> None:
        super().__init__(**options)
        self.heads = heads
        self.window = window
        place = np.stack(np.meshgrid(*[np.arange(window)] * 2, indexing="ij"), -1).reshape(-1, 2)
        distance = np.abs(place[:, None] - place)
        # Distances from the first token come in the order of the tokens, as in the file.
        self.distances = distance[..., 0] * window + distance[..., 1]

    def build(self, input_shape: Any) -> None:
        width, policy = input_shape[-1], self.dtype_policy
        self.norm = keras.layers.LayerNormalization(epsilon=1e-5, dtype=policy, name="norm")
        self.qkv = keras.layers.Dense(3 * width, dtype=policy, name="qkv")
        self.proj = keras.layers.Dense(width, dtype=policy, name="proj")
        for layer in (self.norm, self.qkv, self.proj):
            layer.build(input_shape)
        self.biases = self.add_weight(
            shape=(self.heads, self.window**2), initializer="zeros", name="attention_biases"
        )

    def call(self, x: Any) -> Any:
        tokens, width = self.window**2, x.shape[-1]
        depth = width // self.heads
        qkv = ops.reshape(self.qkv(self.norm(x)), (-1, tokens, self.heads, 3, depth))
        query, key, value = ops.unstack(ops.transpose(qkv, (3, 0, 2, 1, 4)), axis=0)
        scores = ops.matmul(query * depth**-0.5, ops.transpose(key, (0, 1, 3, 2)))
        scores = scores + ops.take(self.biases, self.distances, axis=1)
        x = ops.matmul(ops.softmax(scores), value)
        x = ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, *[self.window] * 2, width))
        return self.proj(x)
