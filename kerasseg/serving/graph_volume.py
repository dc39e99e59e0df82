"""The way of a raw scan through the graph of an exported model, before and after the network.

It is resampled to the grid of the training (`to_grid`, and back), cut to the brain (`cut_to_brain`)
and normalised (`z_score`), with the results of `datasets.resample` and `records.normalise`. The
axes of a scan stay, so resampling along each is a matrix (new length, old length) of weights, in
float64, as Pillow and SciPy compute.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import tensorflow as tf

from kerasseg.datasets.resample import HALF, first_centre, grid_step, same_spacing
from kerasseg.records.normalise import EPSILON, LEAST, PERCENTILES
from kerasseg.serving.graph_input import Accepted, require

_INTEGERS: Final = {1: tf.uint8, 2: tf.uint16, 4: tf.int32, 8: tf.int64}
"""Number of bytes to an integer type of that size."""
_EDGE: Final = 12
"""Voxels by which SciPy lengthens an axis before it finds the coefficients of a spline."""


class Box(NamedTuple):
    """A part of a volume: first voxel and length along each axis, both (3,) int32."""

    begin: Any
    size: Any

    def cut(self, volume: Any) -> Any:
        """Return the part of (D, H, W, …) in the box."""
        rest = len(volume.shape) - 3
        begin = tf.concat([self.begin, [0] * rest], 0)
        part = tf.slice(volume, begin, tf.concat([self.size, [-1] * rest], 0))
        return tf.ensure_shape(part, (None, None, None, *volume.shape[3:]))

    def put_back(self, part: Any, shape: Any, outside: Any) -> Any:
        """Return a part (d, h, w) in a volume of `shape` (3,) that is `outside` elsewhere."""
        after = shape - self.begin - self.size
        return tf.pad(part, tf.stack([self.begin, after], axis=1), constant_values=outside)


def bounding_box(mask: Any) -> Box:
    """Return the smallest box around all that is true in (D, H, W), of size 0 if nothing is."""
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


def cut_to_brain(image: Any) -> tuple[Any, Box]:
    """Return the part of (D, H, W, C) in the smallest box around its signal, and the box."""
    shape = tf.shape(image)[:3]
    # First and last plane of each axis; an empty image has neither.
    faces = [image[:1], image[-1:], image[:, :1], image[:, -1:], image[:, :, :1], image[:, :, -1:]]
    filled = tf.reduce_all([tf.reduce_any(face != 0) for face in faces])

    def search() -> tuple[Any, Any, Any]:
        box = bounding_box(signal_of(image))
        return box.cut(image), box.begin, box.size

    # Most often the image has been cut already.
    inner, begin, size = tf.cond(filled, lambda: (image, tf.zeros_like(shape), shape), search)
    return tf.ensure_shape(inner, (None, None, None, image.shape[-1])), Box(begin, size)


def in_volume(image: Any, box: Box, shape: Any, outside: Sequence[float]) -> Any:
    """Return an image (d, h, w, C) of `box` in a volume of `shape` (3,).

    `outside` are the values of the C channels elsewhere.
    """
    if len(set(outside)) == 1:
        after = tf.concat([shape - box.begin - box.size, [0]], 0)
        margins = tf.stack([tf.concat([box.begin, [0]], 0), after], axis=1)
        found = tf.pad(image, margins, constant_values=outside[0])
    else:
        parts = zip(tf.unstack(image, axis=-1), outside, strict=True)
        found = tf.stack([box.put_back(part, shape, value) for part, value in parts], axis=-1)
    return tf.ensure_shape(found, (None, None, None, len(outside)))


def signal_of(volume: Any) -> Any:
    """Return where (D, H, W, C) is not 0 in every channel, (D, H, W) bool."""
    signal = volume != 0
    integer = _INTEGERS.get(volume.shape[-1])
    if integer is not None:
        # A voxel's channels read as one number: eight times as fast as channel by channel, and a
        # reduction over the short last axis is slower still.
        octets = tf.cast(signal, tf.uint8)
        return (octets[..., 0] if integer is tf.uint8 else tf.bitcast(octets, integer)) != 0
    channels = tf.unstack(signal, axis=-1)
    result = channels[0]
    for channel in channels[1:]:
        result |= channel
    return result


def clear_air(probabilities: Any, volume: Any, background: Sequence[float]) -> Any:
    """Return (D, H, W, K), `background` (K,) where a volume (D, H, W, C) is 0 in every channel."""
    signal = signal_of(volume)[..., tf.newaxis]
    return tf.where(signal, probabilities, tf.constant(background, tf.float32))


class OnGrid(NamedTuple):
    """A volume (D, H, W, C) on the grid of the training, and the way back.

    `scale` (3,) float64 is the size of its voxels in those of the scan, `shape` (3,) that of the
    scan; `same` says whether the scan lay on that grid already.
    """

    volume: Any
    scale: Any
    shape: Any
    same: Any

    def restore(self, probabilities: Any) -> Any:
        """Return probabilities (D, H, W, K) of the training's grid on that of the scan."""
        found = tf.cond(
            self.same,
            lambda: probabilities,
            lambda: resample_probabilities(probabilities, self.scale, self.shape),
        )
        return tf.ensure_shape(found, (None, None, None, probabilities.shape[-1]))


def to_grid(volume: Any, spacing: Any, accepted: Accepted) -> OnGrid:
    """Return a scan (D, H, W, C) with voxels of `spacing` mm on the grid of the training.

    `accepted` tells that grid, and the most voxels that a scan may have there.
    """
    shape = tf.shape(volume)[:3]
    lengths = tf.cast(shape, tf.float64)
    if accepted.size is not None:
        wanted = tf.cast(tf.stack([shape[0], *accepted.size]), tf.float64)
        scale, same = lengths / wanted, tf.reduce_all(wanted == lengths)
    else:
        old, new = tf.cast(spacing, tf.float64), tf.constant(accepted.spacing, tf.float64)
        same = tf.reduce_all(same_spacing(old, new, tf))
        # As float64, as a voxel of a metre would make more voxels than an integer holds.
        scale, wanted = grid_step(old, new, lengths, tf)
        wanted = tf.where(same, lengths, wanted)
    voxels = tf.reduce_prod(wanted)
    few = require(
        voxels <= accepted.voxels,
        "the volume of shape {} would have {} voxels on the grid that this model was trained on, "
        f"more than {accepted.voxels}, the limit that it was exported with",
        shape,
        voxels,
    )
    with tf.control_dependencies([few]):
        wanted = tf.cast(wanted, tf.int32)

    def resampled() -> Any:
        if accepted.size is not None:
            return resize_pictures(volume, accepted.size)
        return resample_image(volume, scale, wanted, cubic=accepted.cubic)

    found = tf.cond(same, lambda: volume, resampled)
    found = tf.ensure_shape(found, (None, None, None, volume.shape[-1]))
    return OnGrid(found, scale, shape, same)


def resize_pictures(volume: Any, size: tuple[int, int]) -> Any:
    """Return (D, H, W, C) float32 with height and width `size`, as `datasets.resize_case` does."""
    lengths = tf.shape(volume)
    pairs = ((lengths[1], size[0]), (lengths[2], size[1]))
    smooth = [None, *(pillow_matrix(old, new, _triangle, 1.0) for old, new in pairs)]
    cover = [None, *(pillow_matrix(old, new, box_filter, 0.5) for old, new in pairs)]
    return _with_air(
        volume,
        lambda values: apply_matrices(values, smooth, tf.float32),
        lambda signal: apply_matrices(signal, cover, tf.float32),
    )


def resample_image(volume: Any, scale: Any, shape: Any, *, cubic: bool) -> Any:
    """Return (D, H, W, C) float32 on another grid, (*shape, C), by cubic splines or linearly.

    `scale` is the size of a new voxel in old ones, (3,) float64.
    """
    lengths, shift = tf.shape(volume)[:3], first_centre(scale)
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
    return _with_air(
        volume,
        lambda values: apply_matrices(values, chosen),
        lambda signal: apply_matrices(signal, linear),
    )


def resample_probabilities(probabilities: Any, scale: Any, shape: Any) -> Any:
    """Return (D, H, W, K) of the training's grid on that of the scan, (*shape, K), linearly.

    `scale` is the size of a voxel of the training's grid in those of the scan, (3,) float64.
    """
    lengths, back = tf.shape(probabilities)[:3], 1 / scale
    shift = first_centre(back)
    matrices = [spline_matrix(lengths[a], shape[a], back[a], shift[a], 1) for a in range(3)]
    channels = tf.unstack(probabilities, axis=-1)
    return tf.stack([apply_matrices(channel, matrices) for channel in channels], axis=-1)


def _with_air(volume: Any, resample: Callable[[Any], Any], cover: Callable[[Any], Any]) -> Any:
    """Return the resampled channels, exactly 0 where air, exactly 0, was most of a voxel."""
    result = []
    for channel in tf.unstack(volume, axis=-1):
        covered = cover(tf.cast(channel != 0, tf.float32))
        result.append(tf.where(covered < HALF, 0.0, resample(channel)))
    return tf.stack(result, axis=-1)


def apply_matrices(values: Any, matrices: Sequence[Any], between: Any = tf.float64) -> Any:
    """Return (D, H, W) with a matrix, or None, applied along each axis, the last axis first.

    Values are rounded to the type `between` after each axis, as Pillow does; SciPy rounds at the
    end only.
    """
    result = values
    for axis, matrix in reversed(list(enumerate(matrices))):
        if matrix is not None:
            moved = tf.tensordot(matrix, tf.cast(result, tf.float64), [[1], [axis]])
            order = [*range(1, axis + 1), 0, *range(axis + 1, 3)]
            result = tf.cast(tf.transpose(moved, order), between)
    return tf.cast(result, tf.float32)


def pillow_matrix(old: Any, new: int, kernel: Callable[[Any], Any], reach: float) -> Any:
    """Return Pillow's weights (new, old) of an axis (libImaging/Resample.c, precompute_coeffs)."""
    length = tf.cast(old, tf.float64)
    # Not simply `new`: by a constant the optimiser divides by multiplying with its inverse.
    scale = length / tf.cast(tf.where(old > 0, new, old), tf.float64)
    wide = tf.maximum(scale, 1.0)
    half = tf.range(new, dtype=tf.float64)[:, tf.newaxis] + 0.5
    centre = _in_this_order(half * scale)
    first = tf.floor(tf.maximum(_in_this_order(centre - reach * wide) + 0.5, 0.0))
    last = tf.floor(tf.minimum(_in_this_order(centre + reach * wide) + 0.5, length))
    places = tf.cast(tf.range(old), tf.float64)[tf.newaxis]
    weights = kernel(_in_this_order(_in_this_order(places - centre) + 0.5) * (1.0 / wide))
    weights = tf.where((places >= first) & (places < last), weights, 0.0)
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)


def spline_matrix(old: Any, new: Any, scale: Any, shift: Any, order: int) -> Any:
    """Return SciPy's weights (new, old) of an axis (ndimage.affine_transform, mode nearest).

    They give the values at `scale` * index + `shift` by splines of `order` 1 or 3, beyond the ends
    those at the ends.
    """
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
    # The coefficients are those of the axis with its ends repeated.
    source = tf.clip_by_value(tf.range(long) - _EDGE, 0, old - 1)
    values = tf.one_hot(source, old, dtype=tf.float64)
    sixth, third = tf.fill([long - 1], tf.constant(1 / 6, tf.float64)), [1 / 3]
    # Above, on and below the diagonal; mirrored at both ends. The last of above and the first of
    # below are not used.
    above, below = tf.concat([third, sixth], 0), tf.concat([sixth, third], 0)
    matrix = tf.stack([above, tf.fill([long], tf.constant(2 / 3, tf.float64)), below])
    coefficients = tf.linalg.tridiagonal_solve(matrix, values, diagonals_format="compact")
    return basis @ coefficients


def _in_this_order(rows: Any) -> Any:
    """Return rows that TensorFlow's optimiser does not compute in another order.

    A last bit decides whether a pixel at the edge of a box belongs to it.
    """
    return tf.gather(rows, tf.range(tf.shape(rows)[0]))


def _triangle(x: Any) -> Any:
    return tf.maximum(1.0 - tf.abs(x), 0.0)


def box_filter(x: Any) -> Any:
    """Return Pillow's kernel of a box of length 1 at the distances x."""
    return tf.cast((x > -0.5) & (x <= 0.5), tf.float64)


def to_unit(image: Any) -> Any:
    """Return (d, h, w, C) float32 scaled as in `records.normalise.to_unit`; zeros stay 0."""
    channels = []
    for channel in tf.unstack(image, axis=-1, num=image.shape[-1]):
        known = tf.sort(tf.boolean_mask(channel, channel != 0))
        known = tf.cond(tf.size(known) > 0, lambda known=known: known, lambda: tf.constant([0.0]))
        count = tf.cast(tf.size(known), tf.float64)
        low, high = (_percentile(known, percent / 100 * (count - 1)) for percent in PERCENTILES)
        scale = tf.cast(tf.maximum(high - low, EPSILON), tf.float32)
        scaled = tf.clip_by_value((channel - tf.cast(low, tf.float32)) / scale, LEAST, 1.0)
        channels.append(tf.where(channel != 0, scaled, 0.0))
    return tf.stack(channels, axis=-1)


def _percentile(ordered: Any, place: Any) -> Any:
    low = tf.cast(place, tf.int32)
    high = tf.minimum(low + 1, tf.size(ordered) - 1)
    first, second = (tf.cast(ordered[index], tf.float64) for index in (low, high))
    return first + (second - first) * (place - tf.cast(low, tf.float64))


def z_score(image: Any, lowest: Any = None) -> Any:
    """Return (d, h, w, C) float32 with each channel z-scored over its voxels that are not 0.

    Those that are 0 stay 0, or get the z-score of the intensities `lowest` (C,) of a scan that is
    not skull-stripped. As in `records.normalise`, sums are float64 and results float32.
    """
    depth, height, width, channels = tf.unstack(tf.shape(image))
    # In rows that hold all channels, and each channel's value repeated along a row: taking the
    # channels apart and together again takes as long as the rest.
    rows = tf.reshape(image, [depth * height, width * channels])

    def total(values: Any) -> Any:
        columns = tf.reshape(tf.reduce_sum(values, axis=0), [width, channels])
        return tf.reduce_sum(columns, axis=0)

    def repeated(values: Any) -> Any:
        return tf.tile(tf.cast(values, tf.float32), [width])

    signal = rows != 0
    count = tf.cast(tf.maximum(total(tf.cast(signal, tf.int32)), 1), tf.float64)
    mean = total(tf.cast(rows, tf.float64)) / count
    shift = tf.cast(mean, tf.float32)
    centred = tf.where(signal, rows - repeated(shift), 0)
    squares = total(tf.square(tf.cast(centred, tf.float64)))
    variance = squares / count - tf.square(mean - tf.cast(shift, tf.float64))
    divisor = tf.sqrt(tf.maximum(variance, 0)) + EPSILON
    scores = centred / repeated(divisor)
    if lowest is not None:
        darkest = (lowest - shift) / tf.cast(divisor, tf.float32)
        scores = tf.where(signal, scores, repeated(darkest))
    return tf.reshape(scores, tf.shape(image))
