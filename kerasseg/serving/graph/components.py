"""Connected components of a mask, as TensorFlow operations."""

import itertools
from typing import Any

import tensorflow as tf


def components(mask: Any, *, corners: bool) -> tuple[Any, Any]:
    """Mask (D, H, W) bool -> components (D, H, W) int32, and the voxels of each number.

    The numbers grow with a component's first voxel in C order, but not one by one: those between
    have no voxel. Outside of the mask is 0, which counts none.

    corners: whether voxels that touch at an edge or a corner are connected, as well as at a face

    What is connected are runs, the stretches of true voxels along the last axis, of which there
    are far fewer than voxels.
    """
    apart = tf.pad(~mask, [[0, 0], [0, 0], [1, 1]], constant_values=True)
    starts, ends = mask & apart[..., :-2], mask & apart[..., 2:]
    first = tf.cast(tf.where(starts), tf.int32)
    last = tf.cast(tf.where(ends)[:, 2], tf.int32)
    numbers = tf.cumsum(tf.reshape(tf.cast(starts, tf.int32), [-1]))
    numbers = tf.where(tf.reshape(mask, [-1]), numbers, 0)
    count = tf.shape(first)[0]
    one, other = _touching(first, numbers, tf.shape(mask), corners)
    lowest = lowest_connected(one, other, count + 1)
    lengths = tf.concat([[0], last - first[:, 2] + 1], 0)
    sizes = tf.math.unsorted_segment_sum(lengths, lowest, count + 1)
    return tf.reshape(tf.gather(lowest, numbers), tf.shape(mask)), sizes


def lowest_connected(one: Any, other: Any, count: Any) -> Any:
    """The lowest number that each of 0 … `count` - 1 is connected with, (count,) int32.

    one, other: the ends of the connections, (e,) int32

    Each points to a lower one, in the end to the lowest. A round lets what both ends of a
    connection point to point to the lower of what that points to, and then shortens every way
    (Shiloach and Vishkin 1982; in this form FastSV, Zhang, Azad and Hu 2020). So the rounds grow
    with the logarithm of the longest way, not with its length.
    """

    def round_(pointers: Any, _: Any) -> tuple[Any, Any]:
        further = tf.gather(pointers, pointers)
        lower = tf.minimum(tf.gather(further, one), tf.gather(further, other))
        found = tf.minimum(pointers, further)
        for end in (one, other):
            ends = tf.gather(pointers, end)
            found = tf.minimum(found, tf.math.unsorted_segment_min(lower, ends, count))
        return found, tf.reduce_any(found != pointers)

    pointers, _ = tf.while_loop(
        lambda _, changed: changed,
        round_,
        (tf.range(count), tf.size(one) > 0),
        parallel_iterations=1,
    )
    return pointers


def _touching(first: Any, numbers: Any, shape: Any, corners: bool) -> tuple[Any, Any]:
    """The numbers of runs that touch, in pairs.

    first:   where each run starts, (n, 3)
    numbers: of the run that each voxel belongs to, from 1, in C order

    Of two runs that touch one starts within the other's reach, so it is enough to look from the
    start of each: at the voxel beside it in the rows around and, at corners, the one before that.
    """
    rows = [step for step in itertools.product((-1, 0, 1), repeat=2) if any(step)]
    if not corners:
        rows = [step for step in rows if 0 in step]
    own = tf.range(1, tf.shape(first)[0] + 1)
    depth, height, width = tf.unstack(first, axis=1)
    ones, others = [], []
    for down, back in rows:
        d, h = depth + down, height + back
        there = (d >= 0) & (d < shape[0]) & (h >= 0) & (h < shape[1])
        row = (d * shape[1] + h) * shape[2]
        for before in (0, 1) if corners else (0,):
            inside = there & (width >= before)
            place = tf.where(inside, row + width - before, 0)
            found = tf.where(inside, tf.gather(numbers, place), 0)
            ones.append(tf.boolean_mask(own, found > 0))
            others.append(tf.boolean_mask(found, found > 0))
    return tf.concat(ones, 0), tf.concat(others, 0)
