"""How this process starts TensorFlow, and how much of the machine it may use and has used.

The environment variables that must be set before TensorFlow is imported are in `FLAGS`.
"""

import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
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
    """Set every environment variable of `FLAGS` that the user has not set."""
    for name, (value, _reason) in FLAGS.items():
        os.environ.setdefault(name, value)


def usable_cores() -> int:
    """Return how many cores this process may use: in a container fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB


def peak_gpu_memory() -> int | None:
    """Return the largest memory that TensorFlow has used on the first GPU, in bytes.

    Without a GPU it is None.
    """
    import tensorflow as tf

    if not tf.config.list_logical_devices("GPU"):
        return None
    return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])


Result = TypeVar("Result")

_START_UP_NOISE = re.compile(
    rb"^(WARNING: All log messages before absl|I\d{4} |W\d{4} .*computation_placer"
    rb"|(E\d{4}|\d{4}-\d\d-\d\d [\d:.]+: E) "  # TensorFlow 2.19 dates what it says first
    rb".*(cuda_platform|computation_placer|cuda_dnn|cuda_fft|cuda_blas|oneDNN supports))"
)

_OPTIONAL_PACKAGES = ("cv2", "matplotlib", "pandas", "scipy", "sklearn")
"""Keras and TensorFlow import these where they are installed, for plots and data frames. They take
100 MiB and a second of every process (benchmarks/notes.md)."""


def start_tensorflow(
    prepare: Callable[[], Result] | None = None, *, hide_optional_packages: bool = False
) -> Result | None:
    """Import TensorFlow without the notices that it prints at every log level, and start it.

    Standard error is caught only while TensorFlow is imported and while it finds out that there is
    no GPU. While GPUs start and machines join it is not: the last words of a crash must be seen.
    Returns what `prepare` returns, or None.

    Args:
        prepare: Called before TensorFlow computes anything: only then can devices be hidden and
            machines be joined.
        hide_optional_packages: Keep the packages that Keras imports only where they are installed
            out of this process, unless they are imported already. They can be imported afterwards,
            but Keras goes on without them: this is for processes that only train.
    """
    with _without_notices():
        with _not_installed(_OPTIONAL_PACKAGES if hide_optional_packages else ()):
            import tensorflow as tf  # which imports Keras
        if not _has_gpu_driver():
            tf.config.list_physical_devices()
    result = prepare() if prepare else None
    # The first operation starts the devices. On a CPU it prints a notice about float16 as well.
    if tf.config.list_physical_devices("GPU"):
        tf.zeros([1])
    else:
        with _without_notices():
            tf.cast(tf.zeros([1]), tf.float16)
    return result


def _has_gpu_driver() -> bool:
    """Return whether TensorFlow may find a GPU: there is a driver, and GPUs are not hidden."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return not hidden and (Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists())


def ask_nvidia_smi(query: str, *options: str) -> list[str]:
    """Return what nvidia-smi says of `query`, a line for each GPU; nothing where it cannot tell."""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader", *options]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


@contextmanager
def _without_notices() -> Iterator[None]:
    """Catch standard error, also that of C++, and pass on all lines that are not known notices."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            caught.seek(0)
            lines = caught.read().splitlines(keepends=True)
            os.write(2, b"".join(line for line in lines if not _START_UP_NOISE.match(line)))


@contextmanager
def _not_installed(packages: Iterable[str]) -> Iterator[None]:
    """Make importing these packages fail within the context, unless they are imported already."""
    hidden = [package for package in packages if package not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: cannot be imported
    try:
        yield
    finally:
        for package in hidden:
            del sys.modules[package]
