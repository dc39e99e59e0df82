"""What cleaning up needs, in a TensorFlow graph."""

from typing import Any

import tensorflow as tf

from kerasseg.inference.clean_up.volume_operations import least_volume
from kerasseg.serving.graph.box import bounding_box
from kerasseg.serving.graph.components import components


class GraphOperations:
    """`VolumeOperations` on tensors. Masks are a part of a volume that holds all that is true.

    shape: (3,) of the whole volume. Along an axis of one voxel there is no outside
    """

    def __init__(self, shape: Any) -> None:
        self._margin = tf.cast(shape != 1, tf.int32)

    def components(self, mask: Any) -> tuple[Any, Any]:
        box = bounding_box(mask)
        found, sizes = components(box.cut(mask), corners=True)
        return box.put_back(found, tf.shape(mask), 0), sizes

    def fill_holes(self, mask: Any) -> Any:
        box, margin = bounding_box(mask), self._margin
        part = box.cut(mask)
        empty = ~tf.pad(part, tf.stack([margin, margin], axis=1))
        found, _ = components(empty, corners=False)
        # The margin is outside. It holds the first voxel, component 1, and the last, which are not
        # connected around a single row.
        last = tf.reduce_sum(tf.reshape(found, [-1])[-1:])
        cut_off = (found > 1) & (found != last)
        return box.put_back(tf.slice(cut_off, margin, box.size), tf.shape(mask), False)

    def take(self, table: Any, places: Any) -> Any:
        return tf.gather(table, places)

    def first_largest(self, sizes: Any) -> Any:
        # Not argmax, which promises nothing for equals.
        count = tf.size(sizes)
        largest = sizes == tf.reduce_max(sizes)
        return tf.reduce_min(tf.where(largest, tf.range(count), count))

    def reaches(self, sizes: Any, spacing: Any, minimum: float) -> Any:
        voxel = tf.reduce_prod(tf.cast(spacing, tf.float64))
        return tf.cast(sizes, tf.float64) * voxel >= least_volume(minimum)

    def count(self, mask: Any) -> Any:
        return tf.math.count_nonzero(mask)
