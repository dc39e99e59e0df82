"""An array as a tensor at the price of one copy."""

import numpy as np
import tensorflow as tf

_ALIGNMENT = 64
"""Bytes; TensorFlow's kernels need it of every tensor, NumPy's arrays seldom have it."""


def tensor_of(array: np.ndarray) -> tf.Tensor:
    """A float32 array of any strides as a tensor in the computer's memory.

    `tf.convert_to_tensor` copies twice: against later changes of the array, and to align it. Both
    copies live as long as the tensor.
    """
    memory = np.empty(array.size * 4 + _ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % _ALIGNMENT
    aligned = memory[first : first + array.size * 4].view(np.float32).reshape(array.shape)
    aligned[...] = array
    return tf.experimental.dlpack.from_dlpack(aligned.__dlpack__())
