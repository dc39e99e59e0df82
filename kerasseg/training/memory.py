"""Whether a training step fits into memory, known before an hour is spent."""

import itertools
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import tensorflow as tf

from kerasseg.config import Experiment
from kerasseg.errors import UserError

_ACTIVATIONS_PER_LEVEL = 18
"""Tensors of a level's size alive at the peak of a step: outputs of convolutions, norms and
activations of both DoubleConvs, the concatenation, and the gradients in flight. Fitted to
measured peaks of 2-D and 3-D networks (benchmarks/notes.md)."""
_COPIES_OF_WEIGHTS = 5
"""Weights, gradients, two AdamW moments, accumulated gradients."""
_WORKSPACE_BYTES = 400_000_000
"""What convolutions and the pipeline take besides, whatever the patch."""


def step_bytes(experiment: Experiment, patch_size: Sequence[int], bytes_per_value: int) -> int:
    """Estimated peak memory of one training step in bytes."""
    features = (*experiment.model.features, experiment.model.bottleneck)
    dimensions = experiment.model.dimensions
    voxels = math.prod(patch_size) * experiment.training.batch_size
    activations = sum(
        voxels / 2 ** (dimensions * level) * channels * _ACTIVATIONS_PER_LEVEL
        for level, channels in enumerate(features)
    )
    kernel, up_kernel = 3**dimensions, 2**dimensions
    pairs = list(itertools.pairwise((experiment.input_channels, *features)))
    encoder = sum(kernel * (a * b + b * b) for a, b in pairs)
    decoder = sum(kernel * 3 * a * a + up_kernel * a * b for a, b in itertools.pairwise(features))
    weights = (encoder + decoder) * 4 * _COPIES_OF_WEIGHTS
    return int(activations * bytes_per_value + weights + _WORKSPACE_BYTES)


def check_memory(experiment: Experiment, policy: str) -> None:
    """Raise `UserError` if the patch cannot fit, naming one that can if there is one."""
    available, where = _available()
    # Under float16 the norms still compute in float32, so not all activations halve.
    width = 3 if policy == "mixed_float16" else 4
    patch = list(experiment.pipeline.patch_size)
    needed = step_bytes(experiment, patch, width)
    if needed <= available:
        return
    stride = 2 ** len(experiment.model.features)
    smaller = patch
    while step_bytes(experiment, smaller, width) > available and max(smaller) > stride:
        longest = smaller.index(max(smaller))
        smaller = [*smaller]
        smaller[longest] -= stride
    fits = step_bytes(experiment, smaller, width) <= available
    remedy = "pipeline.patch_size=" + str(smaller).replace(" ", "") + ", " if fits else ""
    raise UserError(
        f"pipeline.patch_size {patch} with training.batch_size {experiment.training.batch_size} "
        f"and model.features {list(experiment.model.features)} needs about {needed / 1e9:.1f} GB "
        f"for a training step, but {available / 1e9:.1f} GB are available on {where}: use "
        f"{remedy}a smaller training.batch_size or fewer model.features."
    )


def _available() -> tuple[int, str]:
    gpus = tf.config.list_physical_devices("GPU")
    free = _gpu_free() if gpus else 0
    if free:
        return free, "the GPU"
    return min(psutil.virtual_memory().available, _container_limit()), "this machine"


def _container_limit() -> int:
    """Memory that a container may take in bytes (cgroup v2); unlimited elsewhere."""
    try:
        return int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):  # no cgroup v2, or the word "max"
        return sys.maxsize


def _gpu_free() -> int:
    """Free memory of the first visible GPU in bytes by nvidia-smi; 0 when it cannot be asked."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip() or "0"
    query = ["nvidia-smi", f"--id={first}", "--query-gpu=memory.free", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, check=True, capture_output=True, text=True, timeout=20)
        return int(done.stdout.split()[0]) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return 0
