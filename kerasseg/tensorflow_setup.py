"""Importing TensorFlow without its noise.

The environment variables that must stand before TensorFlow is imported, in one place.
"""

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

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


Result = TypeVar("Result")

_START_UP_NOISE = re.compile(
    rb"^(WARNING: All log messages before absl|I\d{4} |W\d{4} .*computation_placer"
    rb"|E\d{4} .*(cuda_platform|computation_placer|cuda_dnn|cuda_fft|cuda_blas|oneDNN supports))"
)

_NOT_FOR_KERAS = ("cv2", "matplotlib", "pandas", "scipy", "sklearn")
"""Keras and TensorFlow import them where they are installed, for plots, data frames and wrappers of
their own, which cost every process memory and start-up time (figures: benchmarks/notes.md)."""


def start_tensorflow(prepare: Callable[[], Result] | None = None) -> Result | None:
    """Import TensorFlow without the notices it prints past every log level.

    They come from C++ before its logger is set up, so standard error is caught as a file
    meanwhile; every line that is not one of the known notices is passed on. Returns what `prepare`
    does, which runs before TensorFlow computes anything: only then can devices be hidden and
    machines be joined.

    Of what Keras imports only where it is installed, pandas, SciPy, Matplotlib, OpenCV and
    scikit-learn stay out; who needs Keras with them imports it first.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            with _not_there(_NOT_FOR_KERAS):
                import tensorflow as tf  # which imports Keras

            tf.config.list_physical_devices()
            result = prepare() if prepare else None
            tf.cast(tf.zeros([1]), tf.float16)
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            caught.seek(0)
            lines = caught.read().splitlines(keepends=True)
            kept = [line for line in lines if not _START_UP_NOISE.match(line)]
            os.write(2, b"".join(kept))
    return result


@contextmanager
def _not_there(packages: Iterable[str]) -> Iterator[None]:
    """Meanwhile they cannot be imported, as if they were not installed, unless they were before."""
    hidden = [package for package in packages if package not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for package in hidden:
            del sys.modules[package]
