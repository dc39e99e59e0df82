"""The largest memory that this process has used, on the host and on its GPU."""

import resource
import sys


def peak_gpu_memory() -> int | None:
    """Bytes of the first GPU that TensorFlow has had in use at one time; None without a GPU."""
    import tensorflow as tf

    if not tf.config.list_logical_devices("GPU"):
        return None
    return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])


def peak_memory() -> int:
    """Largest resident memory of this process so far in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB
