"""Connected components of a mask, as TensorFlow operations."""

from typing import Any

import tensorflow as tf


def components(mask: Any, *, corners: bool) -> Any:
    """Mask (D, H, W) bool -> for each voxel the number of its component's first voxel, (D, H, W).

    Voxels are numbered in C order, int32. A voxel outside of the mask has its own number.

    corners: whether voxels that touch at an edge or a corner are connected, as well as at a face

    Each voxel points to a lower one of its component, in the end to the first. A round lets every
    voxel, and what it points to, point to the lowest that a neighbour points to, and shortens the
    way (FastSV: Zhang, Azad and Hu 2020, SIAM PP). So the rounds grow with the logarithm of a
    component's longest way, not with its length.
    """
    shape, count = tf.shape(mask), tf.size(mask)
    inside = tf.reshape(mask, [-1])
    own = tf.range(count)

    def changed(_: Any, going_on: Any) -> Any:
        return going_on

    def round_(pointers: Any, _: Any) -> tuple[Any, Any]:
        further = tf.gather(pointers, pointers)
        near = tf.where(mask, tf.reshape(further, shape), count)
        near = tf.where(inside, tf.reshape(_lowest_near(near, count, corners), [-1]), count)
        hooked = tf.math.unsorted_segment_min(near, pointers, count)
        lower = tf.minimum(tf.minimum(pointers, further), tf.minimum(near, hooked))
        return lower, tf.reduce_any(lower != pointers)

    pointers, _ = tf.while_loop(changed, round_, (own, tf.reduce_any(mask)), parallel_iterations=1)
    return tf.reshape(pointers, shape)


def _lowest_near(values: Any, nothing: Any, corners: bool) -> Any:
    """The least of each voxel's value and its neighbours'."""
    result = values
    for axis in range(3):
        source = result if corners else values
        padded = tf.pad(source, [[int(a == axis)] * 2 for a in range(3)], constant_values=nothing)
        length = tf.shape(source)[axis]
        for first in (0, 2):
            begin = [first * int(a == axis) for a in range(3)]
            size = [length if a == axis else -1 for a in range(3)]
            result = tf.minimum(result, tf.slice(padded, begin, size))
    return result
