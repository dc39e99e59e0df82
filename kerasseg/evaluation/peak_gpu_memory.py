"""The largest memory on the GPU."""

import tensorflow as tf


def peak_gpu_memory() -> int | None:
    """Bytes of the first GPU that TensorFlow has had in use at one time; None without a GPU."""
    if not tf.config.list_logical_devices("GPU"):
        return None
    return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
