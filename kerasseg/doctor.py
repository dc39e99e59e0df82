"""`kerasseg doctor`: what this machine offers, and the memory and time that a run would take."""

import os
import platform
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import keras
import numpy as np
import psutil
import tensorflow as tf
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from kerasseg import __version__, anatomy
from kerasseg.config.experiment import Experiment
from kerasseg.errors import UserError
from kerasseg.records.manifest import read_manifest
from kerasseg.records.splits import FOLDER, Split, open_split
from kerasseg.records.store import RecordStore, open_store
from kerasseg.run_experiment import build_network
from kerasseg.targets import label_to_masks
from kerasseg.tensorflow_setup import FLAGS
from kerasseg.training import checks
from kerasseg.training.devices import Devices, choose_devices, device_name
from kerasseg.training.fit import build_batches, compile_for_training
from kerasseg.training.multi_worker import read_cluster

_ENOUGH_MEMORY_GB = 8
_ENOUGH_DISK_GB = 50
"""A store of BraTS 2021's 1251 cases takes about 36 GB."""


def examine() -> None:
    """Print a table of the machine and a list of problems."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    table = Table("", "", show_header=False, box=None)
    gpus = tf.config.list_physical_devices("GPU")
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(Path.cwd())
    table.add_row("Python", platform.python_version())
    table.add_row("kerasseg", __version__)
    for package in ("tensorflow", "keras", "numpy"):
        table.add_row(package, metadata.version(package))
    table.add_row("Keras backend", keras.backend.backend())
    table.add_row("Devices", device_name())
    policy, reason = checks.choose_precision("auto")
    table.add_row("Precision", f"{policy} ({reason})")
    onednn = os.environ["TF_ENABLE_ONEDNN_OPTS"]
    table.add_row("oneDNN", "on" if onednn == "1" else f"off (TF_ENABLE_ONEDNN_OPTS={onednn})")
    table.add_row("Memory", f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free")
    table.add_row("Disk here", f"{disk.free / 1e9:.1f} of {disk.total / 1e9:.1f} GB free")
    console.print(table)

    warnings = []
    if onednn != "1" and not gpus:
        warnings.append(
            f"oneDNN is off: unset TF_ENABLE_ONEDNN_OPTS ({FLAGS['TF_ENABLE_ONEDNN_OPTS'][1]})."
        )
    if not gpus and shutil.which("nvidia-smi"):
        warnings.append(
            "nvidia-smi is here but TensorFlow sees no GPU: pip install 'kerasseg[gpu]', and check "
            "that `nvidia-smi` itself works."
        )
    if memory.available < _ENOUGH_MEMORY_GB * 1e9:
        warnings.append(
            f"less than {_ENOUGH_MEMORY_GB} GB of memory are free: use small patches "
            "(pipeline.patch_size) and records.workers=1."
        )
    if disk.free < _ENOUGH_DISK_GB * 1e9:
        warnings.append(
            f"less than {_ENOUGH_DISK_GB} GB of disk are free here: a store of a whole BraTS "
            "release may not fit; name another disk with records.root."
        )
    for text in warnings:
        console.print(f"wrong: {text}", style="yellow")
    if not warnings:
        console.print("Nothing is wrong.")


_BATCHES = 3
"""How many are measured after the first one, which builds the graph."""
_LONG_SECONDS = 30.0
"""No further batch is begun that would take the measured ones beyond this."""


@dataclass(frozen=True)
class Share:
    """The part of an experiment that this machine trains.

    Attributes:
        experiment: The experiment with this machine's part of the batch.
        workers: The number of machines that TF_CONFIG names.
        policy: Keras's name of the precision.
        reason: Why that precision was chosen.
    """

    experiment: Experiment
    devices: Devices
    workers: int
    policy: str
    reason: str


def share_of_this_machine(experiment: Experiment) -> Share:
    """Choose devices and precision here, without waiting for other machines.

    To be called before TensorFlow computes anything. Raises `UserError` for settings that cannot
    work here.
    """
    cluster, training = read_cluster(), experiment.training
    os.environ.pop("TF_CONFIG", None)  # else all machines would have to be started
    workers = cluster.workers if cluster and training.strategy in ("auto", "multi_worker") else 1
    if training.batch_size % workers:
        raise UserError(
            f"training.batch_size {training.batch_size} is over all machines together and cannot "
            f"be shared by the {workers} of TF_CONFIG: use a multiple of {workers}."
        )
    if workers > 1:
        part = {"batch_size": training.batch_size // workers, "strategy": "auto"}
        training = training.model_copy(update=part)
    devices = choose_devices(training)
    policy, reason = checks.choose_precision(training.precision)
    checks.check_precision(experiment, policy)
    part_of_it = experiment.model_copy(update={"training": training})
    return Share(part_of_it, devices, workers, policy, reason)


def forecast(experiment: Experiment, share: Share) -> None:
    """Print the memory of a run by estimate and its time by a few batches of random data.

    Nothing is converted or written.
    """
    console = Console(highlight=False, markup=False, soft_wrap=True)

    def say(heading: str, text: str, style: str = "") -> None:
        console.print(f"{heading:<11}{text}", style=style)

    training, devices, policy = experiment.training, share.devices, share.policy
    keras.config.set_dtype_policy(policy)
    if training.deterministic:
        keras.utils.set_random_seed(experiment.run.seed)
        tf.config.experimental.enable_op_determinism()
    patch = " x ".join(map(str, experiment.pipeline.patch_size))
    batches, size = training.gradient_accumulation, training.batch_size
    network = f"{experiment.model.dimensions}-D {experiment.model.network}"
    say("Network", f"{network}, {checks.count_parameters(experiment):,} parameters")
    say(
        "Update",
        f"{_counted(batches, 'batch', 'es')} of {_counted(size, 'patch', 'es')} of {patch} voxels",
    )
    each = share.experiment.training.batch_size // devices.replicas
    shared = f"; {_counted(each, 'patch', 'es')} on each" if devices.replicas > 1 else ""
    say("Strategy", f"{devices.description}{shared}")
    if share.workers > 1:
        own = _counted(share.experiment.training.batch_size, "patch", "es")
        say(
            "TF_CONFIG",
            f"{share.workers} machines: what follows is of this one's batches of {own}; exchanging "
            "gradients between the machines comes on top",
        )
    say("Precision", f"{policy} ({share.reason})")
    if warning := checks.memory_warning(share.experiment, policy, devices):
        say("Memory", warning, "yellow")
        say("Time", "not measured, because a step may not fit into memory", "yellow")
        return
    memory = checks.step_memory(share.experiment, policy, devices)
    needed, available = (f"{size / 1e9:.1f} GB" for size in (memory.needed, memory.available))
    say("Memory", f"a step needs about {needed} of the {available} available on {memory.where}")
    try:
        seconds = _seconds_per_batch(share, say)
    except tf.errors.ResourceExhaustedError as error:
        message = str(error.message).splitlines()[0]
        say("Time", f"not measured, because memory ran out ({message})", "yellow")
        return
    _say_times(experiment, seconds, say)


def _seconds_per_batch(share: Share, say: Callable[[str, str], None]) -> float:
    """Return the median of a few batches, and print what was measured."""
    times: list[float] = []
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    console = Console(file=sys.stderr)
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task("Measuring: the first batch builds the graph", total=None)
        for seconds in islice(time_batches(share.experiment, share.devices), 1 + _BATCHES):
            times.append(seconds)
            if sum(times[1:]) + seconds > _LONG_SECONDS and len(times) > 1:
                break
            progress.update(task, description=f"Measuring: one batch took {_duration(seconds)}")
    first, *others = times
    median = statistics.median(others)
    spread = f"{len(others)} measured, {_duration(min(others))} to {_duration(max(others))}"
    if len(others) == 1:
        spread = "one measured"
    beside = f"({spread}; the first, which builds the graph, took {_duration(first)})"
    say("Batch", f"{_duration(median)} on random data {beside}")
    return median


def time_batches(experiment: Experiment, devices: Devices) -> Iterator[float]:
    """Yield the seconds of one batch after another, with its update; the first builds the graph.

    The network has random weights and the current dtype policy. One random batch lies in memory, so
    nothing is read.
    """
    training = experiment.training.model_copy(update={"gradient_accumulation": 1})
    experiment = experiment.model_copy(update={"training": training})
    with devices.strategy.scope():
        network = build_network(experiment, initial_weights=False)
        model = compile_for_training(experiment, network, updates_per_epoch=1)
    model.make_train_function()
    dataset = tf.data.Dataset.from_tensors(_random_batch(experiment)).repeat()
    batches = iter(devices.distribute(dataset, training.batch_size))
    while True:
        started = time.perf_counter()
        float(model.train_function(batches)["loss"])  # waits for the device
        yield time.perf_counter() - started


def _random_batch(experiment: Experiment) -> tuple[np.ndarray, ...]:
    """Return image (B, *patch, C) float16 and masks (B, *patch, K) uint8, as the pipeline does."""
    rng = np.random.default_rng(experiment.run.seed)
    shape = (experiment.training.batch_size, *experiment.pipeline.patch_size)
    image = rng.standard_normal((*shape, experiment.input_channels), np.float32)
    label = rng.integers(0, len(anatomy.LABELS), shape, np.uint8)
    masks = label_to_masks(label, experiment.model.target)
    batch = (image.astype(np.float16), masks.astype(np.uint8))
    if experiment.pipeline.augment_on == "host":
        return batch
    return *batch, rng.integers(0, 2**31, (len(image), 2), np.int32)


def _say_times(experiment: Experiment, seconds: float, say: Callable[[str, str], None]) -> None:
    """Print the time of an epoch and of the run; of 100 updates if the cases are not known."""
    training = experiment.training
    batches, cases = _batches_per_epoch(experiment)
    say("Cases", cases)
    if batches is None:
        hundred = 100 * training.gradient_accumulation * seconds
        say("Time", f"{_duration(hundred)} for 100 updates")
    else:
        updates = _counted(batches // training.gradient_accumulation, "update")
        say("Time", f"{_duration(batches * seconds)} for an epoch of {updates},")
        whole = training.epochs * batches * seconds
        say("", f"{_duration(whole)} for {_counted(training.epochs, 'epoch')}")
    say("", "Reading the data, validation and the evaluation at the end come on top.")


def _batches_per_epoch(experiment: Experiment) -> tuple[int | None, str]:
    """Return the batches of an epoch, or None if unknown, and a sentence about the cases."""
    given = experiment.training.steps_per_epoch
    try:
        found = _store_and_split(experiment)
    except UserError as error:
        return given, f"not known, because the record store cannot be used: {error}"
    if found is None:
        return given, f"not known before kerasseg convert (no store in {experiment.store_root})"
    store, split = found
    batches, _ = build_batches(experiment, store, split)
    cases = f"{len(split.train)} train, {len(split.validation)} validate ({store.root})"
    return batches.steps_per_epoch, cases


def _store_and_split(experiment: Experiment) -> tuple[RecordStore, Split] | None:
    """Return the store and the split of the experiment, if it was converted."""
    if read_manifest(experiment.store_root) is None:
        return None
    store = open_store(experiment)
    with TemporaryDirectory() as folder:
        # A split that was never made would be written into the store: let it be written elsewhere.
        elsewhere = RecordStore(Path(folder), store.manifest)
        if (store.root / FOLDER).is_dir():
            shutil.copytree(store.root / FOLDER, elsewhere.root / FOLDER)
        try:
            return store, open_split(elsewhere, experiment.split)
        except UserError as error:
            raise UserError(str(error).replace(folder, str(store.root))) from None


def _counted(number: int, noun: str, ending: str = "s") -> str:
    return f"{number} {noun}{'' if number == 1 else ending}"


def _duration(seconds: float) -> str:
    """Write seconds in the unit that fits."""
    for unit, size, least in (("days", 86400, 2), ("hours", 3600, 1.5), ("minutes", 60, 1.5)):
        if seconds >= size * least:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
