"""A scan on the grid that the networks were trained on, and their predictions back on its own."""

from typing import Any, NamedTuple

import tensorflow as tf

from kerasseg.datasets.resample import SAME_SPACING
from kerasseg.serving.graph.check_volume import Accepted
from kerasseg.serving.graph.require import require
from kerasseg.serving.graph.resampling import resampled_volume, resized_pictures, restored


class OnGrid(NamedTuple):
    """A volume (D, H, W, C) of the run's grid. `scale`: its voxel size over the scan's, (3,)
    float64; `shape`: (3,) of the scan; `same`: whether nothing was done."""

    volume: Any
    scale: Any
    shape: Any
    same: Any

    def restore(self, probabilities: Any) -> Any:
        """(D, H, W, K) of the whole run's grid -> of the scan's, linearly."""
        found = tf.cond(
            self.same,
            lambda: probabilities,
            lambda: restored(probabilities, self.scale, self.shape),
        )
        return tf.ensure_shape(found, (None, None, None, probabilities.shape[-1]))


def on_grid(volume: Any, spacing: Any, accepted: Accepted) -> OnGrid:
    """`datasets.read_case.to_grid` of a scan; spacing: (3,) of its voxels in mm."""
    shape = tf.shape(volume)[:3]
    lengths = tf.cast(shape, tf.float64)
    if accepted.size is not None:
        wanted = tf.stack([shape[0], *accepted.size])
        scale = lengths / tf.cast(wanted, tf.float64)
        same = tf.reduce_all(wanted == shape)
    else:
        target = tf.constant(accepted.spacing, tf.float64)
        scale = target / tf.cast(spacing, tf.float64)
        same = tf.reduce_all(tf.abs(tf.cast(spacing, tf.float64) - target) <= SAME_SPACING * target)
        # As float64, as a voxel of a metre would make more voxels than an integer holds.
        wanted = tf.where(same, lengths, tf.maximum(tf.round(lengths / scale), 1.0))
    voxels = tf.reduce_prod(tf.cast(wanted, tf.float64))
    few = require(
        voxels <= accepted.voxels,
        "the volume of shape {} would have {} voxels on the grid that this model was trained on, "
        f"more than {accepted.voxels}, the limit that it was exported with",
        shape,
        voxels,
    )
    with tf.control_dependencies([few]):
        wanted = tf.cast(wanted, tf.int32)
    found = tf.cond(same, lambda: volume, lambda: _moved(volume, scale, wanted, accepted))
    found = tf.ensure_shape(found, (None, None, None, volume.shape[-1]))
    return OnGrid(found, scale, shape, same)


def _moved(volume: Any, scale: Any, wanted: Any, accepted: Accepted) -> Any:
    if accepted.size is not None:
        return resized_pictures(volume, accepted.size)
    return resampled_volume(volume, scale, wanted, cubic=accepted.cubic)
