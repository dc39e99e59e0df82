"""The environment variables that must stand before TensorFlow is imported, in one place."""

import os

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
