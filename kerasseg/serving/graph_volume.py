"""`records.normalise.z_score` in a graph.

The smallest box around what is true, in a graph.

`datasets.resize` and `datasets.resample` in a graph: a volume onto the run's grid, and back.

The axes stay, so each is a matrix (new length, old length) of weights, float64, as Pillow and SciPy
compute in it.

A scan on the grid that the networks were trained on, and their predictions back on its own.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from kerasseg.datasets.resample import SAME_SPACING
from kerasseg.records.normalise import EPSILON
from kerasseg.serving.graph_input import Accepted, require

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


_EDGE = 12
"""Voxels by which SciPy lengthens an axis before it finds the coefficients of a spline."""


def resized_pictures(volume: Any, size: tuple[int, int]) -> Any:
    """`resize_case`: (D, H, W, C) float32 -> (D, *size, C)."""
    lengths = tf.shape(volume)
    pairs = ((lengths[1], size[0]), (lengths[2], size[1]))
    smooth = [None, *(filter_matrix(old, new, _triangle, 1.0) for old, new in pairs)]
    cover = [None, *(filter_matrix(old, new, _box, 0.5) for old, new in pairs)]
    return _channel_by_channel(
        volume,
        lambda values: along(values, smooth, tf.float32),
        lambda signal: along(signal, cover, tf.float32),
    )


def resampled_volume(volume: Any, scale: Any, shape: Any, *, cubic: bool) -> Any:
    """`resample_image`: (D, H, W, C) float32 -> (*shape, C).

    scale: voxel size of the new grid over that of the old one, (3,) float64
    """
    lengths = tf.shape(volume)[:3]
    shift = (scale - 1) / 2
    linear = [spline_matrix(lengths[a], shape[a], scale[a], shift[a], 1) for a in range(3)]
    chosen = linear
    if cubic:  # a spline needs two voxels along every axis
        enough = tf.reduce_min(lengths) >= 2
        chosen = [
            tf.cond(
                enough,
                lambda a=a: spline_matrix(lengths[a], shape[a], scale[a], shift[a], 3),
                lambda a=a: linear[a],
            )
            for a in range(3)
        ]
    return _channel_by_channel(
        volume, lambda values: along(values, chosen), lambda signal: along(signal, linear)
    )


def restored(probabilities: Any, scale: Any, shape: Any) -> Any:
    """`resample_probabilities`: (D, H, W, K) of the run's grid -> (*shape, K) of the scan's.

    scale: voxel size of the run's grid over that of the scan's, (3,) float64
    """
    lengths = tf.shape(probabilities)[:3]
    back, shift = 1 / scale, (1 / scale - 1) / 2
    matrices = [spline_matrix(lengths[a], shape[a], back[a], shift[a], 1) for a in range(3)]
    channels = tf.unstack(probabilities, axis=-1)
    return tf.stack([along(channel, matrices) for channel in channels], axis=-1)


def along(values: Any, matrices: Sequence[Any], between: Any = tf.float64) -> Any:
    """A matrix on each axis of (D, H, W), the last axis first; None leaves one as it is.

    between: what the values are rounded to after each axis; SciPy rounds at the end only
    """
    result = values
    for axis, matrix in reversed(list(enumerate(matrices))):
        if matrix is not None:
            moved = tf.tensordot(matrix, tf.cast(result, tf.float64), [[1], [axis]])
            order = [*range(1, axis + 1), 0, *range(axis + 1, 3)]
            result = tf.cast(tf.transpose(moved, order), between)
    return tf.cast(result, tf.float32)


def filter_matrix(old: Any, new: int, kernel: Callable[[Any], Any], reach: float) -> Any:
    """Pillow's resampling of an axis (libImaging/Resample.c, precompute_coeffs)."""
    length = tf.cast(old, tf.float64)
    # Not simply `new`: by a constant the optimiser divides by multiplying with its inverse.
    scale = length / tf.cast(tf.where(old > 0, new, old), tf.float64)
    wide = tf.maximum(scale, 1.0)
    half = tf.range(new, dtype=tf.float64)[:, tf.newaxis] + 0.5
    centre = _as_it_is(half * scale)
    first = tf.floor(tf.maximum(_as_it_is(centre - reach * wide) + 0.5, 0.0))
    last = tf.floor(tf.minimum(_as_it_is(centre + reach * wide) + 0.5, length))
    places = tf.cast(tf.range(old), tf.float64)[tf.newaxis]
    weights = kernel(_as_it_is(_as_it_is(places - centre) + 0.5) * (1.0 / wide))
    weights = tf.where((places >= first) & (places < last), weights, 0.0)
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)


def spline_matrix(old: Any, new: Any, scale: Any, shift: Any, order: int) -> Any:
    """Values at `scale` * index + `shift` of an axis, whose ends go on, by splines of `order` 1 or
    3 (scipy.ndimage.affine_transform, mode nearest)."""
    places = tf.cast(tf.range(new), tf.float64) * scale + shift
    if order == 1:
        places = tf.clip_by_value(places, 0.0, tf.cast(old - 1, tf.float64))[:, tf.newaxis]
        distance = tf.abs(tf.cast(tf.range(old), tf.float64)[tf.newaxis] - places)
        return tf.maximum(1.0 - distance, 0.0)
    long = old + 2 * _EDGE
    last = tf.cast(long - 1, tf.float64)
    places = tf.clip_by_value(places + _EDGE, 0.0, last)[:, tf.newaxis]
    distance = tf.abs(tf.cast(tf.range(long), tf.float64)[tf.newaxis] - places)
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = tf.maximum(2 - distance, 0.0) ** 3 / 6
    basis = tf.where(distance < 1, near, far)
    # What the coefficients are of: the axis with its ends repeated.
    source = tf.clip_by_value(tf.range(long) - _EDGE, 0, old - 1)
    values = tf.one_hot(source, old, dtype=tf.float64)
    sixth, third = tf.fill([long - 1], tf.constant(1 / 6, tf.float64)), [1 / 3]
    # Above, on and below the diagonal; mirrored at both ends. The last of above and the first of
    # below are not used.
    above, below = tf.concat([third, sixth], 0), tf.concat([sixth, third], 0)
    matrix = tf.stack([above, tf.fill([long], tf.constant(2 / 3, tf.float64)), below])
    coefficients = tf.linalg.tridiagonal_solve(matrix, values, diagonals_format="compact")
    return basis @ coefficients


def _channel_by_channel(
    volume: Any, values_of: Callable[[Any], Any], cover_of: Callable[[Any], Any]
) -> Any:
    """Air, exactly 0 before, is exactly 0 where it was most of what a voxel covers."""
    result = []
    for channel in tf.unstack(volume, axis=-1):
        covered = cover_of(tf.cast(channel != 0, tf.float32))
        result.append(tf.where(covered < 0.5, 0.0, values_of(channel)))
    return tf.stack(result, axis=-1)


def _as_it_is(rows: Any) -> Any:
    """Rows that TensorFlow's optimiser does not compute in another order: a last bit decides
    whether a pixel at the edge of a box belongs to it."""
    return tf.gather(rows, tf.range(tf.shape(rows)[0]))


def _triangle(x: Any) -> Any:
    return tf.maximum(1.0 - tf.abs(x), 0.0)


def _box(x: Any) -> Any:
    return tf.cast((x > -0.5) & (x <= 0.5), tf.float64)


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


def z_score(image: Any) -> Any:
    """(d, h, w, C) float32, each channel z-scored over its voxels that are not 0, which stay 0.

    As there: sums in float64, then float32. C is known.
    """
    depth, height, width, channels = tf.unstack(tf.shape(image))
    # In rows that hold all channels, and each channel's value repeated along a row: taking the
    # channels apart and together again takes as long as the rest.
    rows = tf.reshape(image, [depth * height, width * channels])

    def total(values: Any) -> Any:
        along = tf.reshape(tf.reduce_sum(values, axis=0), [width, channels])
        return tf.reduce_sum(along, axis=0)

    def repeated(values: Any) -> Any:
        return tf.tile(tf.cast(values, tf.float32), [width])

    signal = rows != 0
    count = tf.cast(tf.maximum(total(tf.cast(signal, tf.int32)), 1), tf.float64)
    mean = total(tf.cast(rows, tf.float64)) / count
    shift = tf.cast(mean, tf.float32)
    centred = tf.where(signal, rows - repeated(shift), 0)
    squares = total(tf.square(tf.cast(centred, tf.float64)))
    variance = squares / count - tf.square(mean - tf.cast(shift, tf.float64))
    deviation = tf.sqrt(tf.maximum(variance, 0))
    return tf.reshape(centred / repeated(deviation + EPSILON), tf.shape(image))
