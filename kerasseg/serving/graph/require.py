"""Refusing bad input in a graph, with a sentence."""

from typing import Any

import tensorflow as tf


def require(condition: Any, sentence: str, *values: Any) -> Any:
    """An operation that fails with InvalidArgument unless `condition`, a scalar, holds.

    `sentence` has a {} for each of `values`, tensors. Nothing waits for it by itself: what may
    only run afterwards goes under `tf.control_dependencies`.
    """
    first, *rest = sentence.split("{}")
    parts = [tf.constant(first)]
    for value, words in zip(values, rest, strict=True):
        # Not all with tf.strings.format, which puts strings into quotes.
        text = value.dtype == tf.string
        parts += [value if text else tf.strings.format("{}", value), tf.constant(words)]
    return tf.debugging.Assert(condition, [tf.strings.join(parts)])
