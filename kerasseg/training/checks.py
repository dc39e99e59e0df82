"""Checks before a run: its precision, its memory, and records that are damaged on disk."""

import ctypes
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import keras
import psutil
import tensorflow as tf

from kerasseg.config.experiment import Experiment
from kerasseg.config.model import ModelSettings
from kerasseg.errors import UserError
from kerasseg.models.build import build_network
from kerasseg.models.unet import supervision_logits
from kerasseg.private_hooks import weights_without_values
from kerasseg.records.split_files import SIDES
from kerasseg.records.splits import Split
from kerasseg.records.store import RecordStore
from kerasseg.tensorflow_setup import ask_nvidia_smi
from kerasseg.training.devices import Devices

_TENSOR_CORES = (7, 0)
"""Compute capability from which float16 convolutions are faster (Volta)."""


def choose_precision(setting: str) -> tuple[str, str]:
    """Choose the precision of `training.precision` for the GPUs that are visible.

    Returns Keras's name of the dtype policy, and the reason for it in a few words. Raises
    `UserError` for mixed_float16 without a GPU: TensorFlow has no 3-D pooling in float16 on a CPU.
    """
    gpus = tf.config.get_visible_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    if setting == "mixed_float16" and not gpus:
        raise UserError(
            "training.precision=mixed_float16 needs a GPU, and TensorFlow sees none (kerasseg "
            "doctor says why): use training.precision=auto or float32."
        )
    if setting != "auto":
        return setting, "as configured"
    if not gpus:
        return "float32", "no GPU"
    capability = min(d.get("compute_capability", (0, 0)) for d in details)
    name = details[0].get("device_name", "GPU")
    if capability >= _TENSOR_CORES:
        return "mixed_float16", f"{name} has tensor cores"
    return "float32", f"{name} has no tensor cores"


def check_precision(experiment: Experiment, policy: str) -> None:
    """Raise `UserError` where gradients would be wrong: in bfloat16 on a CPU, in thin patches.

    oneDNN in TensorFlow 2.21 adds memory that was never written to the gradient of a 3-D kernel of
    stride 1 whose feature maps are thinner than the kernel, but not of a single slice. The step
    then ends in NaN or, worse, in wrong numbers.
    """
    model, patch = experiment.model, list(experiment.pipeline.patch_size)
    if model.dimensions == 2 or policy != "mixed_bfloat16" or tf.config.get_visible_devices("GPU"):
        return
    thinnest = patch[0] // model.stride
    if thinnest < model.kernel:
        raise UserError(
            "training.precision=mixed_bfloat16 on a CPU gives wrong gradients in feature maps "
            f"thinner than model.kernel={model.kernel}, and pipeline.patch_size {patch} is "
            f"{thinnest} deep in the bottleneck: use a depth of at least "
            f"{model.kernel * model.stride}, or training.precision=float32."
        )


def leave_out_damaged(store: RecordStore, split: Split) -> tuple[Split, dict[str, str]]:
    """Read every record of a split and leave the damaged ones out.

    Returns the split without the damaged cases, and what is wrong with each of them by its case id.
    Raises `UserError` if no case is left to train or to validate on.
    """
    sides = {side: getattr(split, side) for side in SIDES}
    damaged = store.damaged_records(
        list(dict.fromkeys(case_id for case_ids in sides.values() for case_id in case_ids))
    )
    sound = {side: tuple(c for c in cases if c not in damaged) for side, cases in sides.items()}
    for side in ("train", "validation"):
        if not sound[side]:
            cases = sides[side]
            raise UserError(
                f"records.on_damaged_record=skip leaves no {side} case: all {len(cases)} of them "
                f"are damaged, the first: {damaged[cases[0]].rstrip('.')}. Convert anew with "
                "kerasseg convert --overwrite."
            )
    left = Split(sound["train"], sound["validation"], sound["test"], split.overfit_check)
    return left, damaged


_LIVE_SHARE = 1.2
"""Values alive at the peak of a step per value that goes in or out of a layer: the gradients in
flight come to those kept for the backward pass. Fitted to measured peaks of 2-D and 3-D networks
on a CPU (benchmarks/notes.md), which is why an estimate may warn and must not refuse."""
_COPIES_OF_WEIGHTS = 3
"""Weights, gradients, and what the update of the largest of them works in; with accumulation the
sum so far besides a fresh gradient."""
_COPIES_OF_OPTIMIZERS = {"adamw": 2, "adam": 2, "sgd": 1, "lion": 1}
"""Further copies of the weights that an optimiser keeps; any other is taken to keep two."""
_WORKSPACE_BYTES = 400_000_000
"""Memory that convolutions and the pipeline take besides, whatever the patch."""


@dataclass(frozen=True)
class StepMemory:
    """The memory that a training step is estimated to need, and that of the device, in bytes.

    `where` names the device in a sentence.
    """

    needed: int
    available: int
    where: str

    @property
    def fits(self) -> bool:
        """True if the estimate is at most what is available."""
        return self.needed <= self.available


def step_memory(experiment: Experiment, policy: str, devices: Devices | None = None) -> StepMemory:
    """Estimate the memory of a training step on the experiment's own patches.

    Each GPU has a memory of its own and a part of the batch in it; the CPUs of a machine share one.

    Args:
        policy: Keras's name of the dtype policy.
        devices: The devices that share a batch; None for a single one.
    """
    available, where = _available_memory()
    batch = experiment.training.batch_size // _memories(devices)
    patch = experiment.pipeline.patch_size
    needed = step_bytes(experiment, patch, _bytes_per_value(policy), batch)
    return StepMemory(needed, available, where)


def step_bytes(
    experiment: Experiment,
    patch_size: Sequence[int],
    bytes_per_value: int,
    batch_size: int | None = None,
) -> int:
    """Estimate the peak memory of one training step in bytes.

    Args:
        patch_size: Size of a patch in voxels, which need not be the experiment's.
        bytes_per_value: Bytes of an activation.
        batch_size: Patches that lie in one memory; None for all of `training.batch_size`.
    """
    settings, training = experiment.model, experiment.training
    values, parameters = _values_and_parameters(
        settings.model_dump_json(), experiment.input_channels
    )
    padded = (-(-size // settings.stride) * settings.stride for size in patch_size)
    activations = values * math.prod(padded) * (batch_size or training.batch_size) * _LIVE_SHARE
    optimizer = experiment.optimizer
    copies = _COPIES_OF_WEIGHTS + (training.gradient_accumulation > 1)
    copies += _COPIES_OF_OPTIMIZERS.get(optimizer.name, 2) + (optimizer.ema is not None)
    weights = parameters * 4 * copies
    return int(activations * bytes_per_value + weights + _WORKSPACE_BYTES)


def count_parameters(experiment: Experiment) -> int:
    """Return the number of parameters of the network, without building it."""
    settings = experiment.model.model_dump_json()
    return _values_and_parameters(settings, experiment.input_channels)[1]


def memory_warning(
    experiment: Experiment, policy: str, devices: Devices | None = None
) -> str | None:
    """Return a sentence if a training step may not fit into memory, with what would fit instead.

    It is an estimate: the run may go well, and is not to be refused. None if the step fits.
    """
    memory = step_memory(experiment, policy, devices)
    if memory.fits:
        return None
    patch, batch = list(experiment.pipeline.patch_size), experiment.training.batch_size
    parts = _memories(devices)
    of_each = f" ({batch // parts} on each GPU)" if parts > 1 else ""
    setting, channels = _features(experiment)
    remedies = [*_fitting(experiment, policy, parts, memory.available), f"fewer {setting}"]
    return (
        f"pipeline.patch_size {patch} with training.batch_size {batch}{of_each} and {setting} "
        f"{list(channels)} needs about {memory.needed / 1e9:.1f} GB for a training step by "
        f"estimate, but {memory.available / 1e9:.1f} GB are available on {memory.where}: if memory "
        f"runs out, use {', or '.join(remedies)}."
    )


def out_of_memory(
    experiment: Experiment, message: str, devices: Devices | None = None
) -> UserError:
    """Return the error for memory that ran out in training; `message` is TensorFlow's."""
    patch, stride = experiment.pipeline.patch_size, experiment.model.stride
    width = _bytes_per_value(keras.config.dtype_policy().name)
    batch = experiment.training.batch_size // _memories(devices)
    half = [max(size // 2 // stride, 1) * stride for size in patch]
    needed, halved = (step_bytes(experiment, size, width, batch) / 1e9 for size in (patch, half))
    return UserError(
        f"Memory ran out during training ({message.splitlines()[0]}). A step on patches of "
        f"{list(patch)} with training.batch_size {experiment.training.batch_size} was estimated at "
        f"{needed:.1f} GB; of {half} it would be {halved:.1f} GB: use a smaller "
        "pipeline.patch_size, training.batch_size (with more training.gradient_accumulation) or "
        f"{_features(experiment)[0]}, or training.precision=mixed_float16 on a GPU. Other programs "
        "on the same device count, too."
    )


@lru_cache(maxsize=16)
def _values_and_parameters(section: str, input_channels: int) -> tuple[float, int]:
    """Count the values that layers take and give per voxel of a patch, and the parameters.

    `section` is section `model` as JSON, which can be hashed.
    """
    settings = ModelSettings.model_validate_json(section).without_weights
    # In this scope weights have a shape but no values: a large network is built in no time.
    with weights_without_values():
        network = build_network(settings, input_channels)
        count = network.output.shape[-1]
        heads = supervision_logits(network, settings.deep_supervision, count)
    network = keras.Model(network.inputs, [*network.outputs, *heads])
    tensors = {}
    for layer in network.layers:
        tensors.update({id(x): x for x in keras.tree.flatten([layer.input, layer.output])})
    for layer in network.layers:
        if isinstance(layer, keras.layers.Identity):
            for x in keras.tree.flatten(layer.output):
                del tensors[id(x)]  # no values of its own
    # At the smallest patch without padding every voxel of it stands for one of any larger patch.
    smallest = (settings.stride,) * settings.dimensions
    probe = keras.Model(network.inputs, list(tensors.values()))
    given = [keras.KerasTensor((1, *smallest, x.shape[-1])) for x in network.inputs]
    shapes = probe.compute_output_spec(given if len(given) > 1 else given[0])
    values = sum(math.prod(x.shape) for x in shapes)
    return values / math.prod(smallest), network.count_params()


def _fitting(experiment: Experiment, policy: str, parts: int, available: int) -> Iterator[str]:
    """Yield overrides: the largest patch and the largest batch that fit where the other stays."""
    patch, batch = list(experiment.pipeline.patch_size), experiment.training.batch_size
    stride, width = experiment.model.stride, _bytes_per_value(policy)

    def fits(patch: Sequence[int], batch: int) -> bool:
        return step_bytes(experiment, patch, width, batch // parts) <= available

    smaller = [*patch]
    while not fits(smaller, batch) and max(smaller) > stride:
        smaller[smaller.index(max(smaller))] -= stride
    a_patch_fits = fits(smaller, batch)
    if a_patch_fits:
        yield "pipeline.patch_size=" + str(smaller).replace(" ", "")
    fewer = [n for n in range(parts, batch, parts) if fits(patch, n)]
    if fewer:
        yield f"training.batch_size={fewer[-1]} (and more training.gradient_accumulation)"
    elif batch > parts and not a_patch_fits:
        yield "a smaller training.batch_size"


def _features(experiment: Experiment) -> tuple[str, Sequence[int]]:
    """Return the name of the setting of a network's width, and its value."""
    if experiment.model.network == "pretrained_unet":
        return "model.pretrained.decoder_features", experiment.model.pretrained.decoder_features
    if experiment.model.network == "sam":
        return "model.sam.side", [experiment.model.stride]
    return "model.features", experiment.model.features


def _memories(devices: Devices | None) -> int:
    """Return how many memories share a batch."""
    if devices is None:
        return 1
    return devices.replicas if tf.config.get_visible_devices("GPU") else devices.workers


def _bytes_per_value(policy: str) -> int:
    """Return the mean size of an activation in bytes."""
    # Under float16 the norms still compute in float32, so not all activations halve.
    return 4 if policy == "float32" else 3


def _available_memory() -> tuple[int, str]:
    """Return the free memory in bytes of what trains, and its name in a sentence."""
    gpus = tf.config.get_visible_devices("GPU")
    free = _free_gpu_memory(gpus) if gpus else 0
    if free:
        return free, "the GPU" if len(gpus) == 1 else "the fullest GPU"
    return min(psutil.virtual_memory().available, _container_limit()), "this machine"


def _container_limit() -> int:
    """Return the bytes of memory that a container may take (cgroup v2); without a limit maxsize."""
    try:
        return int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):  # no cgroup v2, or the word "max"
        return sys.maxsize


def _free_gpu_memory(gpus: Sequence[Any]) -> int:
    """Ask nvidia-smi for the least free memory of these GPUs in bytes; 0 if it cannot be asked."""
    try:
        ids = _pci_bus_ids([int(gpu.name.rpartition(":")[2]) for gpu in gpus])
        found = ask_nvidia_smi("memory.free", f"--id={','.join(ids)}")
        return min((int(line.split()[0]) for line in found), default=0) * 2**20
    except (OSError, ValueError):
        return 0


def _pci_bus_ids(numbers: Sequence[int]) -> list[str]:
    """Return the PCI bus ids, such as 0000:65:00.0, of TensorFlow's GPUs of these numbers.

    TensorFlow numbers GPUs as CUDA does: the fastest first, unless CUDA_DEVICE_ORDER says
    otherwise, and only those of CUDA_VISIBLE_DEVICES. nvidia-smi counts all of them by their bus,
    so its numbers may stand for other GPUs. Raises `OSError` if CUDA cannot be asked.
    """
    cuda = ctypes.CDLL("libcuda.so.1")
    ids = []
    for number in numbers:
        device, bus_id = ctypes.c_int(), ctypes.create_string_buffer(32)
        failed = (
            cuda.cuInit(0)
            or cuda.cuDeviceGet(ctypes.byref(device), number)
            or cuda.cuDeviceGetPCIBusId(bus_id, len(bus_id), device)
        )
        if failed:
            raise OSError(f"CUDA does not name GPU {number} (error {failed})")
        ids.append(bus_id.value.decode())
    return ids
