"""Whether a training step fits into memory, known before an hour is spent."""

import itertools
import math
import subprocess
from collections.abc import Sequence

import psutil
import tensorflow as tf

from kerasseg.config import Experiment
from kerasseg.errors import UserError

_ACTIVATIONS_PER_LEVEL = 18
"""Tensors of a level's size alive at the peak of a step: outputs of convolutions, norms and
activations of both DoubleConvs, the concatenation, and the gradients in flight. Fitted to
measured peaks (benchmarks/notes.md)."""
_COPIES_OF_WEIGHTS = 5
"""Weights, gradients, two AdamW moments, accumulated gradients."""
_WORKSPACE_BYTES = 400_000_000
"""What convolutions and the pipeline take besides, whatever the patch."""


def step_bytes(experiment: Experiment, patch_size: Sequence[int], bytes_per_value: int) -> int:
    """Estimated peak memory of one training step in bytes."""
    features = (*experiment.model.features, experiment.model.bottleneck)
    voxels = math.prod(patch_size) * experiment.training.batch_size
    activations = sum(
        voxels / 8**level * channels * _ACTIVATIONS_PER_LEVEL
        for level, channels in enumerate(features)
    )
    pairs = list(zip((len(experiment.data.modalities), *features), features, strict=False))
    encoder = sum(27 * (a * b + b * b) for a, b in pairs)
    decoder = sum(27 * 3 * a * a + 8 * a * b for a, b in itertools.pairwise(features))
    weights = (encoder + decoder) * 4 * _COPIES_OF_WEIGHTS
    return int(activations * bytes_per_value + weights + _WORKSPACE_BYTES)


def check_memory(experiment: Experiment, policy: str) -> None:
    """Raise `UserError` if the patch cannot fit, naming one that can."""
    available, where = _available()
    width = 2 if policy == "mixed_float16" else 4
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
    remedy = "pipeline.patch_size=" + str(smaller).replace(" ", "")
    raise UserError(
        f"pipeline.patch_size {patch} with training.batch_size {experiment.training.batch_size} "
        f"and model.features {list(experiment.model.features)} needs about {needed / 1e9:.1f} GB "
        f"for a training step, but {available / 1e9:.1f} GB are available on {where}: "
        f"use {remedy}, a smaller training.batch_size or fewer model.features."
    )


def _available() -> tuple[int, str]:
    for gpu in tf.config.list_physical_devices("GPU"):
        total = _gpu_total(gpu.name.rpartition(":")[2])
        if total:
            return total, "the GPU"
    return psutil.virtual_memory().available, "this machine"


def _gpu_total(index: str) -> int:
    """Total memory of a GPU in bytes by nvidia-smi; 0 when it cannot be asked."""
    query = ["nvidia-smi", f"--id={index}", "--query-gpu=memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, check=True, capture_output=True, text=True, timeout=20)
        return int(done.stdout.split()[0]) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return 0
