"""Refusing bad input in a graph, with a sentence."""

from typing import Any

import tensorflow as tf


def require(condition: Any, sentence: str, *values: Any) -> Any:
    """An operation that fails with InvalidArgument unless `condition`, a scalar, holds.

    `sentence` has a {} for each of `values`, tensors. Nothing waits for it by itself: what may
    only run afterwards goes under `tf.control_dependencies`.
    """
    words = tf.strings.format(sentence, values) if values else tf.constant(sentence)
    return tf.debugging.Assert(condition, [words])
