"""The smallest box around what is true, in a graph."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

_WORDS = {1: tf.uint8, 2: tf.uint16, 4: tf.int32, 8: tf.int64}
"""Integers of as many bytes."""


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


def brain_box(image: Any) -> tuple[Any, Box]:
    """(D, H, W, C) -> what is in the smallest box around its signal, and the box."""
    shape = tf.shape(image)[:3]
    faces = (
        part for axis in range(3) for part in (_plane(image, axis, 0), _plane(image, axis, -1))
    )
    filled = tf.reduce_all([tf.reduce_any(face != 0) for face in faces])

    def search() -> tuple[Any, Any, Any]:
        box = bounding_box(signal_of(image))
        return box.cut(image), box.begin, box.size

    # Most often the image has been cut already.
    inner, begin, size = tf.cond(filled, lambda: (image, tf.zeros_like(shape), shape), search)
    return tf.ensure_shape(inner, (None, None, None, image.shape[-1])), Box(begin, size)


def _plane(image: Any, axis: int, place: int) -> Any:
    """The first plane or the last; none of an empty image."""
    part = slice(0, 1) if place == 0 else slice(-1, None)
    return image[tuple(part if each == axis else slice(None) for each in range(3))]


def in_volume(image: Any, box: Box, shape: Any, outside: Sequence[float]) -> Any:
    """What is in `box`, (d, h, w, C), in a volume of `shape` (3,) that is `outside` elsewhere."""
    if len(set(outside)) == 1:
        after = tf.concat([shape - box.begin - box.size, [0]], 0)
        margins = tf.stack([tf.concat([box.begin, [0]], 0), after], axis=1)
        found = tf.pad(image, margins, constant_values=outside[0])
    else:
        parts = zip(tf.unstack(image, axis=-1), outside, strict=True)
        found = tf.stack([box.put_back(part, shape, value) for part, value in parts], axis=-1)
    return tf.ensure_shape(found, (None, None, None, len(outside)))


def signal_of(volume: Any) -> Any:
    """Where (D, H, W, C) is not 0 in every channel, (D, H, W) bool."""
    signal = volume != 0
    word = _WORDS.get(volume.shape[-1])
    if word is not None:
        # A voxel's channels read as one number: eight times as fast as channel by channel, and a
        # reduction over the short last axis is slower still.
        octets = tf.cast(signal, tf.uint8)
        return (octets[..., 0] if word is tf.uint8 else tf.bitcast(octets, word)) != 0
    channels = tf.unstack(signal, axis=-1)
    result = channels[0]
    for channel in channels[1:]:
        result |= channel
    return result
