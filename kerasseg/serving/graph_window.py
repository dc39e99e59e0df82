"""`inference.sliding_window` in a graph, for volumes whose size is known when it runs."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from kerasseg.inference.windows import window_step
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
    """Volume (D, H, W, C) -> weighted mean of the windows' predictions (D, H, W, K) float32.

    The arguments are those of `inference.sliding_window`, and so are the windows and the result.
    weights: of a window, (d, h, w) float32

    The sums are updated in place, one batch of windows after the other.
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

    starts = window_starts(lengths, window, overlap)
    seen = tf.map_fn(
        lambda start: tf.reduce_any(tf.slice(signal, start, outer)),
        starts,
        fn_output_signature=tf.bool,
    )
    count = len(background)
    rows, width = lengths[0] * lengths[1], lengths[2]
    norm = _add_to_all(tf.zeros([rows, width]), lengths, starts, weights)
    sums = tf.zeros([rows, width * count])
    # For every channel, as multiplying with one that is repeated is slower.
    weights = tf.tile(weights, [1, 1, 1, count])
    if any(background):
        certain = weights * tf.constant(background, tf.float32)
        sums = _add_to_all(sums, lengths, tf.boolean_mask(starts, ~seen), certain)
    looked_at = tf.boolean_mask(starts, seen)

    def read(start: Any) -> Any:
        return tf.slice(padded, tf.concat([start, [0]], 0), [*outer, -1])

    def step(first: Any, sums: Any) -> tuple[Any, Any]:
        places = looked_at[first : first + batch]
        if batch == 1:
            windows = read(places[0])[tf.newaxis]
        else:
            windows = tf.map_fn(
                read, places, fn_output_signature=tf.TensorSpec((*outer, volume.shape[3]))
            )
        windows = tf.ensure_shape(windows, (None, *outer, volume.shape[3]))
        values = predict(windows)
        values = tf.slice(values, tf.concat([[0], before, [0]], 0), [-1, *tf.unstack(inner), -1])
        if batch == 1:
            return first + 1, _add(sums, lengths, places[0], values[0] * weights)
        sums = _add_each(sums, lengths, places, lambda index: values[index] * weights)
        return first + batch, sums

    _, sums = tf.while_loop(
        lambda first, _: first < tf.shape(looked_at)[0],
        step,
        (tf.constant(0), sums),
        shape_invariants=(tf.TensorShape(()), tf.TensorShape((None, None))),
        parallel_iterations=1,  # else the network would run on several batches at a time
    )
    shape = tf.concat([lengths, [count]], 0)
    # Repeated first: a division that repeats along the short last axis is slower.
    norm = tf.tile(norm[..., tf.newaxis], [1, 1, count])
    found = tf.reshape(sums, shape) / tf.reshape(norm, shape)
    return tf.ensure_shape(found, (None, None, None, count))


def window_starts(lengths: Any, window: Sequence[int], overlap: float) -> Any:
    """First voxels (n, 3) int32 of the windows over a volume of `lengths` (3,).

    Those of `WindowGrid`; 0 along an axis where the volume is smaller than the window.
    """
    axes = []
    for axis, size in enumerate(window):
        slack = tf.maximum(lengths[axis] - size, 0)
        steps = -(-slack // window_step(size, overlap))
        places = tf.cast(tf.range(steps + 1) * slack, tf.float64)
        places /= tf.cast(tf.maximum(steps, 1), tf.float64)
        axes.append(tf.cast(tf.round(places), tf.int32))
    return tf.reshape(tf.stack(tf.meshgrid(*axes, indexing="ij"), axis=-1), (-1, 3))


def _add(sums: Any, lengths: Any, start: Any, values: Any) -> Any:
    """`sums` (D * H, W * K) of a volume of `lengths`, with `values` (d, h, w, K) added from `start`
    on, in its own memory."""
    # By whole rows, with zeros beside the window: TensorStridedSliceUpdate goes value by value,
    # which takes several times as long.
    d, h, w, channels = tf.unstack(tf.shape(values))
    planes, rows = start[0] + tf.range(d), start[1] + tf.range(h)
    places = tf.reshape(planes[:, tf.newaxis] * lengths[1] + rows, [-1, 1])
    beside = [start[2] * channels, (lengths[2] - start[2] - w) * channels]
    lines = tf.pad(tf.reshape(values, [d * h, w * channels]), [[0, 0], beside])
    return tf.tensor_scatter_nd_add(sums, places, lines)


def _add_each(sums: Any, lengths: Any, places: Any, value_of: Callable[[Any], Any]) -> Any:
    _, sums = tf.while_loop(
        lambda index, _: index < tf.shape(places)[0],
        lambda index, sums: (index + 1, _add(sums, lengths, places[index], value_of(index))),
        (tf.constant(0), sums),
        shape_invariants=(tf.TensorShape(()), sums.shape),
        parallel_iterations=1,
    )
    return sums


def _add_to_all(sums: Any, lengths: Any, places: Any, values: Any) -> Any:
    return _add_each(sums, lengths, places, lambda _: values)
