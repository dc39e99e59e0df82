"""The environment variables that must stand before TensorFlow is imported, in one place."""

import os
import re
import sys
import tempfile

FLAGS: dict[str, tuple[str, str]] = {
    "TF_ENABLE_ONEDNN_OPTS": (
        "1",
        "TensorFlow turns oneDNN off on AVX2-only processors; with it the backward pass of a "
        "3-D convolution is several times faster",
    ),
    "TF_CPP_MIN_LOG_LEVEL": (
        "2",
        "TensorFlow's start-up notices about CPU features and missing CUDA hide our own messages",
    ),
    "TF_FORCE_GPU_ALLOW_GROWTH": (
        "true",
        "without it TensorFlow takes all memory of every GPU, also of those it will not use",
    ),
    "KERAS_BACKEND": (
        "tensorflow",
        "tf.data, records and serving are TensorFlow's; a keras.json naming another backend "
        "would split one program over two frameworks",
    ),
}


def set_flags() -> None:
    """Set every flag of `FLAGS` that the user has not set."""
    for name, (value, _reason) in FLAGS.items():
        os.environ.setdefault(name, value)


def usable_cores() -> int:
    """Cores this process may run on, which in a container are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_START_UP_NOISE = re.compile(
    rb"^(WARNING: All log messages before absl|I\d{4} |W\d{4} .*computation_placer"
    rb"|E\d{4} .*(cuda_platform|computation_placer|cuda_dnn|cuda_fft|cuda_blas|oneDNN supports))"
)


def start_tensorflow() -> None:
    """Import TensorFlow without the notices it prints past every log level.

    They come from C++ before its logger is set up, so standard error is caught as a file
    meanwhile; every line that is not one of the known notices is passed on.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()
            tf.cast(tf.zeros([1]), tf.float16)
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            caught.seek(0)
            lines = caught.read().splitlines(keepends=True)
            kept = [line for line in lines if not _START_UP_NOISE.match(line)]
            os.write(2, b"".join(kept))
