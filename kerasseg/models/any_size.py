"""Images of any size through a network that halves them: padded before it, cropped after it.

Built from `keras.ops` whose shapes are only known when the network runs, so that the network saves,
reloads and exports as it is.
"""

import keras
from keras import ops


def pad_to_stride(image: keras.KerasTensor, stride: int) -> keras.KerasTensor:
    """(B, *spatial, C) -> the same with zeros at the end of each axis, to multiples of `stride`."""
    padded = ops.pad(image, ((0, 0), *[(0, stride - 1)] * (len(image.shape) - 2), (0, 0)))
    for axis in range(1, len(image.shape) - 1):
        ones = ops.repeat(_ones_along(image, axis, stride), stride)
        padded = ops.take(padded, _positions(ones), axis=axis)
    return padded


def crop_like(x: keras.KerasTensor, image: keras.KerasTensor, stride: int = 1) -> keras.KerasTensor:
    """(B, *larger, K) -> its first ceil(spatial / stride) voxels along each axis of `image`."""
    for axis in range(1, len(image.shape) - 1):
        x = ops.take(x, _positions(_ones_along(image, axis, stride)), axis=axis)
    return x


def _ones_along(image: keras.KerasTensor, axis: int, stride: int) -> keras.KerasTensor:
    """ceil(length / stride) ones: the length of the axis, which is no number before the run."""
    line = tuple(slice(None) if i == axis else 0 for i in range(len(image.shape)))
    # float32 whatever the precision: float16 cannot count beyond 2048.
    ones = ops.reshape(ops.ones_like(image[line], dtype="float32"), (1, -1, 1))
    return ops.reshape(ops.max_pool(ones, stride, stride, padding="same"), (-1,))


def _positions(ones: keras.KerasTensor) -> keras.KerasTensor:
    """(n,) ones -> 0, 1, …, n - 1."""
    return ops.cast(ops.cumsum(ones) - 1.0, "int32")
