"""Looking rows up in a table."""

import tensorflow as tf


def take_rows(table: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Table (n, ...) and rows (...) int32 -> the table's rows in their places.

    What `tf.gather` does, which for rows of a few bytes takes half as long again on a CPU.
    """
    return tf.gather_nd(table, rows[..., tf.newaxis])
