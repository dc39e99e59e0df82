"""Refusing a volume that cannot be segmented, in the graph."""

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from kerasseg.serving.graph.require import require


@dataclass(frozen=True)
class Accepted:
    """What a model takes.

    modalities: the channels in order
    voxels:     the largest D x H x W
    spacing:    (D, H, W) in mm that volumes are resampled to; None: as they are
    size:       height and width that pictures are resized to; None: as they are
    cubic:      whether volumes are resampled by cubic splines, else linearly
    volumes:    whether a single slice is refused
    """

    modalities: tuple[str, ...]
    voxels: int
    spacing: tuple[float, float, float] | None = None
    size: tuple[int, int] | None = None
    cubic: bool = True
    volumes: bool = True

    @property
    def shape(self) -> str:
        """The shape in words."""
        channels = len(self.modalities)
        return f"(depth, height, width, {channels}), the channels {', '.join(self.modalities)}"


def check_shape(shape: Any, accepted: Accepted) -> Any:
    """A shape (n,) of any integer kind -> the same as (4,) int64, if a volume may have it."""
    given = tf.reshape(tf.cast(shape, tf.int64), [-1])
    # Four numbers in any case: what comes next may be computed before the assertion has failed.
    shape = tf.reshape(tf.concat([given, [1, 1, 1, 1]], 0)[:4], [4])
    fits = (tf.size(given) == 4) & (shape[3] == len(accepted.modalities))
    channels = require(fits, f"the volume's shape is {{}}, expected {accepted.shape}", given)
    with tf.control_dependencies([channels]):
        shape = tf.identity(shape)
    empty = require(tf.reduce_all(shape > 0), "the volume's shape is {}: it holds no voxel", shape)
    # As float64, in which no product of three 32-bit numbers overflows.
    voxels = tf.reduce_prod(tf.cast(shape[:3], tf.float64))
    large = require(
        voxels <= accepted.voxels,
        f"the volume's shape is {{}}: more than {accepted.voxels} voxels, the limit that this "
        "model was exported with",
        shape,
    )
    checks = [empty, large]
    if accepted.volumes:
        checks.append(
            require(
                shape[0] > 1,
                "the volume's shape is {}: a single slice, but this model takes whole volumes",
                shape,
            )
        )
    with tf.control_dependencies(checks):
        return tf.identity(shape)


def check_values(volume: Any, accepted: Accepted) -> Any:
    """(D, H, W, C) -> itself, if every channel holds a scan."""
    # A sum is NaN or infinite where a value is. It may be infinite without, too: then they are
    # looked at one by one. A channel that varies in the middle plane need not be looked at further.
    bad = tf.cond(
        tf.math.is_finite(tf.reduce_sum(volume)),
        lambda: tf.constant(0, tf.int64),
        lambda: tf.math.count_nonzero(~tf.math.is_finite(volume)),
    )
    finite = require(bad == 0, "the volume has {} value(s) that are NaN or infinite", bad)
    middle = _same(volume[tf.shape(volume)[0] // 2][tf.newaxis])
    same = tf.cond(tf.reduce_any(middle), lambda: _same(volume), lambda: middle)
    names = tf.strings.reduce_join(
        tf.boolean_mask(tf.constant(accepted.modalities), same), separator=", "
    )
    with tf.control_dependencies([finite]):
        constant = require(
            ~tf.reduce_any(same),
            "the same value in every voxel of the channel(s) {}: there is no scan in them",
            names,
        )
    with tf.control_dependencies([constant]):
        return tf.identity(volume)


def _same(volume: Any) -> Any:
    """Whether each channel of (D, H, W, C) has a single value, (C,) bool."""
    return tf.reduce_min(volume, (0, 1, 2)) == tf.reduce_max(volume, (0, 1, 2))


def check_spacing(spacing: Any) -> Any:
    """Voxel size -> (3,) float32 in mm, 1 where it was 0."""
    shape = require(
        tf.reduce_all(tf.shape(spacing)[-1:] == 3) & (tf.size(spacing) == 3),
        "spacing has the shape {}, expected (3,): the voxel size depth, height, width in mm",
        tf.shape(spacing),
    )
    with tf.control_dependencies([shape]):
        spacing = tf.reshape(spacing, [3])
    checks = [
        require(
            tf.reduce_all(tf.math.is_finite(spacing) & (spacing >= 0)),
            "spacing is {}, expected the voxel size depth, height, width in mm, or 0 for 1 mm",
            spacing,
        )
    ]
    spacing = tf.where(spacing == 0, 1.0, spacing)
    with tf.control_dependencies(checks):
        return tf.identity(spacing)
