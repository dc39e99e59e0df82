"""Finding the voxels of a box among those that a record stores."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from kerasseg.pipeline.parse import Record

_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, np.newaxis], axis=1, bitorder="little")
_NOT_STORED = np.iinfo(np.int32).min // 2
_RANK_IN_BYTE = np.where(_BITS > 0, np.cumsum(_BITS, axis=1), _NOT_STORED).astype(np.int32)
"""(256, 8): for each bit of each byte 1 if it is the first set one, 2 if the second, …"""


def voxel_rows(record: Record, start: tf.Tensor, size: Sequence[int] | tf.Tensor) -> tf.Tensor:
    """Rows of `record.values` and `record.labels` that fill a box: `size` (d, h, w) int32.

    `start` is the box's first voxel (3,); the box may reach over the volume on any side. Row 0,
    background, stands for every voxel that is not stored or lies outside.
    """
    size = tf.convert_to_tensor(size, tf.int32)
    first = tf.clip_by_value(start, 0, record.shape)
    last = tf.clip_by_value(start + size, 0, record.shape)
    (d, h, w), (d_end, h_end, w_end) = tf.unstack(first), tf.unstack(last)
    first_byte = w // 8
    in_rows = record.mask[d:d_end, h:h_end]
    in_box = in_rows[..., first_byte : -(-w_end // 8)]
    # Of the bytes before the box the bits are only counted; those of the box are unpacked.
    before = tf.reduce_sum(_set_bits(in_rows[..., :first_byte]), axis=-1)
    before = (before + record.row_start[d:d_end, h:h_end])[..., tf.newaxis]
    before += tf.cumsum(_set_bits(in_box), axis=-1, exclusive=True)
    rank = tf.gather(_RANK_IN_BYTE, tf.cast(in_box, tf.int32))
    found = tf.maximum(before[..., tf.newaxis] + rank, 0)
    found = tf.reshape(found, tf.stack([d_end - d, h_end - h, 8 * tf.shape(rank)[2]]))
    found = found[..., w - 8 * first_byte : w_end - 8 * first_byte]
    before_volume = tf.clip_by_value(-start, 0, size)
    pads = tf.stack([before_volume, size - (last - first) - before_volume], axis=1)
    # Most boxes lie inside, and padding by nothing would still copy them.
    return tf.cond(tf.reduce_any(pads > 0), lambda: tf.pad(found, pads), lambda: found)


def _set_bits(values: tf.Tensor) -> tf.Tensor:
    """How many bits of each uint8 are set, int32."""
    return tf.cast(tf.raw_ops.PopulationCount(x=values), tf.int32)
