"""Linear maps along the axes of a patch, each a small matrix: blurring, coarser sampling, ghosts.

A matrix product takes a fraction of the time of a convolution's shifted sums on a CPU, and edges
are part of the matrix.
"""

from collections.abc import Sequence

import tensorflow as tf


def along_axes(image: tf.Tensor, matrices: Sequence[tf.Tensor | None]) -> tf.Tensor:
    """Image (*spatial, C) -> each axis multiplied by its matrices (C, n, n), one per channel; None
    leaves an axis as it is.

    result[..., i, ..., c] = sum_j matrices[axis][c, i, j] image[..., j, ..., c]
    """
    rank = len(image.shape) - 1
    sizes = tf.shape(image)
    x = tf.transpose(image, [rank, *range(rank)])
    for axis, matrix in enumerate(matrices):
        if matrix is None:
            continue
        before = tf.reduce_prod(sizes[:axis])
        after = tf.reduce_prod(sizes[axis + 1 : rank])
        length, channels = sizes[axis], sizes[rank]
        if axis == rank - 1:
            x = tf.reshape(x, [channels, before, length])
            x = tf.matmul(x, matrix, transpose_b=True)
        else:
            x = tf.reshape(x, [channels, before, length, after])
            x = tf.matmul(matrix[:, tf.newaxis], x)
        x = tf.reshape(x, tf.concat([[channels], sizes[:rank]], 0))
    return tf.ensure_shape(tf.transpose(x, [*range(1, rank + 1), 0]), image.shape)
