"""The smallest box around what is true, in a graph."""

from typing import Any, NamedTuple

import tensorflow as tf


class Box(NamedTuple):
    """First voxel and length along each axis, both (3,) int32."""

    begin: Any
    size: Any

    def cut(self, volume: Any) -> Any:
        """The part of (D, H, W, …) in the box."""
        rest = len(volume.shape) - 3
        begin = tf.concat([self.begin, [0] * rest], 0)
        part = tf.slice(volume, begin, tf.concat([self.size, [-1] * rest], 0))
        return tf.ensure_shape(part, (None, None, None, *volume.shape[3:]))

    def put_back(self, part: Any, shape: Any, outside: Any) -> Any:
        """A part (d, h, w) in a volume of `shape` (3,) that is `outside` elsewhere."""
        after = shape - self.begin - self.size
        return tf.pad(part, tf.stack([self.begin, after], axis=1), constant_values=outside)


def bounding_box(mask: Any) -> Box:
    """Around all that is true in (D, H, W); of size 0 where nothing is."""
    planes = tf.reduce_any(mask, axis=2)
    hits = (
        tf.reduce_any(planes, axis=1),
        tf.reduce_any(planes, axis=0),
        tf.reduce_any(mask, axis=(0, 1)),
    )
    begins, sizes = [], []
    for hit in hits:
        length = tf.size(hit)
        places = tf.range(length)
        first = tf.reduce_min(tf.where(hit, places, length))
        last = tf.reduce_max(tf.where(hit, places, -1))
        some = tf.reduce_any(hit)  # of an empty axis least and largest are the ends of int32
        begins.append(tf.where(some, first, 0))
        sizes.append(tf.where(some, last - first + 1, 0))
    return Box(tf.stack(begins), tf.stack(sizes))


def signal_of(volume: Any) -> Any:
    """Where (D, H, W, C) is not 0 in every channel, (D, H, W) bool."""
    # Channel by channel: a reduction over the short last axis takes several times as long.
    channels = tf.unstack(volume != 0, axis=-1)
    result = channels[0]
    for channel in channels[1:]:
        result |= channel
    return result
