"""Whether a training step fits into memory, known before an hour is spent."""

import math
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import keras
import psutil
import tensorflow as tf

from kerasseg.config import Experiment
from kerasseg.errors import UserError
from kerasseg.models.build import build_network
from kerasseg.models.deep_supervision import supervision_logits
from kerasseg.settings.model import ModelSettings

_LIVE_SHARE = 1.2
"""Values alive at the peak of a step per value that goes in or out of a layer: the gradients in
flight come to those kept for the backward pass. Fitted to measured peaks of 2-D and 3-D networks
(benchmarks/notes.md)."""
_COPIES_OF_WEIGHTS = 3
"""Weights, gradients, accumulated gradients."""
_MOMENTS = {"adamw": 2, "adam": 2, "sgd": 1, "lion": 1, "muon": 1}
"""Further copies that an optimiser keeps."""
_WORKSPACE_BYTES = 400_000_000
"""What convolutions and the pipeline take besides, whatever the patch."""


def step_bytes(experiment: Experiment, patch_size: Sequence[int], bytes_per_value: int) -> int:
    """Estimated peak memory of one training step in bytes."""
    settings = experiment.model
    values, parameters = _values_and_parameters(settings, experiment.input_channels)
    padded = (-(-size // settings.stride) * settings.stride for size in patch_size)
    activations = values * math.prod(padded) * experiment.training.batch_size * _LIVE_SHARE
    optimizer = experiment.optimizer
    copies = _COPIES_OF_WEIGHTS + _MOMENTS[optimizer.name] + (optimizer.ema is not None)
    weights = parameters * 4 * copies
    return int(activations * bytes_per_value + weights + _WORKSPACE_BYTES)


@lru_cache(maxsize=16)
def _values_and_parameters(settings: ModelSettings, input_channels: int) -> tuple[float, int]:
    """Values that layers take and give per voxel of the patch, and parameters of the network."""
    settings = settings.model_copy(
        update={"pretrained": settings.pretrained.model_copy(update={"weights": "none"})}
    )
    # In this scope weights have a shape but no values: a large network is built in no time.
    with keras.StatelessScope(initialize_variables=False):
        network = build_network(settings, input_channels)
        count = network.output.shape[-1]
        heads = supervision_logits(network, settings.deep_supervision, count)
    network = keras.Model(network.inputs, [*network.outputs, *heads])
    tensors = {}
    for layer in network.layers:
        tensors.update({id(x): x for x in keras.tree.flatten([layer.input, layer.output])})
    for layer in network.layers:
        if isinstance(layer, keras.layers.Identity):
            del tensors[id(layer.output)]  # no values of its own
    # At the smallest patch without padding every voxel of it stands for one of any larger patch.
    smallest = (settings.stride,) * settings.dimensions
    probe = keras.Model(network.inputs, list(tensors.values()))
    shapes = probe.compute_output_spec(keras.KerasTensor((1, *smallest, input_channels)))
    values = sum(math.prod(x.shape) for x in shapes)
    return values / math.prod(smallest), network.count_params()


def check_memory(experiment: Experiment, policy: str) -> None:
    """Raise `UserError` if the patch cannot fit, naming one that can if there is one."""
    available, where = _available()
    # Under float16 the norms still compute in float32, so not all activations halve.
    width = 3 if policy == "mixed_float16" else 4
    patch = list(experiment.pipeline.patch_size)
    needed = step_bytes(experiment, patch, width)
    if needed <= available:
        return
    stride = experiment.model.stride
    smaller = patch
    while step_bytes(experiment, smaller, width) > available and max(smaller) > stride:
        longest = smaller.index(max(smaller))
        smaller = [*smaller]
        smaller[longest] -= stride
    fits = step_bytes(experiment, smaller, width) <= available
    remedy = "pipeline.patch_size=" + str(smaller).replace(" ", "") + ", " if fits else ""
    setting, channels = "model.features", experiment.model.features
    if experiment.model.network == "pretrained_unet":
        setting = "model.pretrained.decoder_features"
        channels = experiment.model.pretrained.decoder_features
    raise UserError(
        f"pipeline.patch_size {patch} with training.batch_size {experiment.training.batch_size} "
        f"and {setting} {list(channels)} needs about {needed / 1e9:.1f} GB for a training step, "
        f"but {available / 1e9:.1f} GB are available on {where}: use {remedy}a smaller "
        f"training.batch_size or fewer {setting}."
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
