"""The sliding window in the graph of an exported model, for volumes of any size.

It does what `inference.windows.sliding_window` does, with the same windows and weights.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from kerasseg.inference.windows import window_starts
from kerasseg.serving.graph_volume import signal_of


def sliding_window(
    predict: Callable[[Any], Any],
    volume: Any,
    window: tuple[int, int, int],
    background: Sequence[float],
    weights: Any,
    *,
    overlap: float,
    batch: int,
    context: int,
) -> Any:
    """Return the weighted mean (D, H, W, K) float32 of the predictions of overlapping windows.

    The arguments are those of `inference.windows.sliding_window`, and `weights` (d, h, w) float32
    is what its `window_weights` returns. The sum is updated in place, batch by batch.
    """
    lengths, size = tf.shape(volume)[:3], tf.constant(window)
    missing = tf.maximum(size - lengths, 0)
    before = missing // 2
    around = tf.constant([context, 0, 0])
    margins = tf.stack([before + around, missing - before + around], axis=1)
    padded = tf.cond(
        tf.reduce_any(margins > 0),
        lambda: tf.pad(volume, tf.concat([margins, [[0, 0]]], 0)),
        lambda: volume,
    )
    padded = tf.ensure_shape(padded, (None, None, None, volume.shape[3]))
    signal = signal_of(padded)
    inner = tf.minimum(lengths, size)
    weights = tf.slice(weights, before, inner)[..., tf.newaxis]
    outer = [window[0] + 2 * context, *window[1:]]

    starts = grid_starts(lengths, window, overlap)
    has_signal = tf.map_fn(
        lambda start: tf.reduce_any(tf.slice(signal, start, outer)),
        starts,
        fn_output_signature=tf.bool,
    )
    count = len(background)
    rows, width = lengths[0] * lengths[1], lengths[2]
    norm = _add_each(tf.zeros([rows, width]), lengths, starts, lambda _: weights)
    sums = tf.zeros([rows, width * count])
    # For every channel, as multiplying with one that is repeated is slower.
    weights = tf.tile(weights, [1, 1, 1, count])
    if any(background):
        air = weights * tf.constant(background, tf.float32)
        sums = _add_each(sums, lengths, tf.boolean_mask(starts, ~has_signal), lambda _: air)
    predicted = tf.boolean_mask(starts, has_signal)

    def read(start: Any) -> Any:
        return tf.slice(padded, tf.concat([start, [0]], 0), [*outer, -1])

    def step(first: Any, sums: Any) -> tuple[Any, Any]:
        places = predicted[first : first + batch]
        if batch == 1:
            windows = read(places[0])[tf.newaxis]
        else:
            windows = tf.map_fn(
                read, places, fn_output_signature=tf.TensorSpec((*outer, volume.shape[3]))
            )
        values = predict(tf.ensure_shape(windows, (None, *outer, volume.shape[3])))
        values = tf.slice(values, tf.concat([[0], before, [0]], 0), [-1, *tf.unstack(inner), -1])
        if batch == 1:
            return first + 1, _add(sums, lengths, places[0], values[0] * weights)
        sums = _add_each(sums, lengths, places, lambda index: values[index] * weights)
        return first + batch, sums

    _, sums = tf.while_loop(
        lambda first, _: first < tf.shape(predicted)[0],
        step,
        (tf.constant(0), sums),
        shape_invariants=(tf.TensorShape(()), tf.TensorShape((None, None))),
        parallel_iterations=1,  # else the network would run on several batches at a time
    )
    shape = tf.concat([lengths, [count]], 0)
    # Repeated first: a division that repeats along the short last axis is slower.
    norm = tf.tile(norm[..., tf.newaxis], [1, 1, count])
    mean = tf.reshape(sums, shape) / tf.reshape(norm, shape)
    return tf.ensure_shape(mean, (None, None, None, count))


def grid_starts(lengths: Any, window: Sequence[int], overlap: float) -> Any:
    """Return the first voxels (n, 3) int32 of the windows over a volume of `lengths` (3,).

    They are those of `WindowGrid`, but 0 along an axis where the volume is smaller than the window.
    """
    axes = [
        window_starts(tf.maximum(lengths[axis] - size, 0), size, overlap, tf, tf.range)
        for axis, size in enumerate(window)
    ]
    places = tf.stack(tf.meshgrid(*axes, indexing="ij"), axis=-1)
    return tf.cast(tf.reshape(places, (-1, 3)), tf.int32)


def _add(sums: Any, lengths: Any, start: Any, values: Any) -> Any:
    """Return `sums` (D * H, W * K) with `values` (d, h, w, K) added from `start` on, in place."""
    # By whole rows, with zeros beside the window: TensorStridedSliceUpdate goes value by value,
    # which takes several times as long.
    d, h, w, channels = tf.unstack(tf.shape(values))
    planes, rows = start[0] + tf.range(d), start[1] + tf.range(h)
    places = tf.reshape(planes[:, tf.newaxis] * lengths[1] + rows, [-1, 1])
    beside = [start[2] * channels, (lengths[2] - start[2] - w) * channels]
    lines = tf.pad(tf.reshape(values, [d * h, w * channels]), [[0, 0], beside])
    return tf.tensor_scatter_nd_add(sums, places, lines)


def _add_each(sums: Any, lengths: Any, places: Any, value_at: Callable[[Any], Any]) -> Any:
    """Return `sums` with `value_at(i)` (d, h, w, K) added from place i on, one after the other."""
    _, sums = tf.while_loop(
        lambda index, _: index < tf.shape(places)[0],
        lambda index, sums: (index + 1, _add(sums, lengths, places[index], value_at(index))),
        (tf.constant(0), sums),
        shape_invariants=(tf.TensorShape(()), sums.shape),
        parallel_iterations=1,
    )
    return sums
