"""Choose what a run computes on: one device, several, or several machines."""

import platform
import signal
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import tensorflow as tf

from kerasseg.config.training import TrainingSettings
from kerasseg.errors import UserError
from kerasseg.tensorflow_setup import usable_cores
from kerasseg.training.multi_worker import Cluster, Machines, read_cluster, wait_for_workers


@dataclass(frozen=True)
class Devices(Machines):
    """A tf.distribute strategy, why it was chosen, and this process's place in it.

    A replica is a device that has a copy of the network and sees its part of each batch.

    Attributes:
        strategy: The strategy.
        reason: Why it was chosen, in a few words.
        cluster: The machines; None for this one alone.
    """

    strategy: tf.distribute.Strategy
    reason: str
    cluster: Cluster | None = None

    @property
    def description(self) -> str:
        """The strategy and why it was chosen."""
        name = type(self.strategy).__name__.replace("CollectiveAllReduce", "MultiWorkerMirrored")
        plain = self.strategy is tf.distribute.get_strategy()
        return f"{'no strategy' if plain else name} ({self.reason})"

    def distribute(self, batches: tf.data.Dataset, batch_size: int) -> Any:
        """Split the batches of this machine into parts for its replicas.

        Args:
            batches: Batches of this machine.
            batch_size: Patches in a batch of all machines together.
        """
        if self.replicas == 1:
            gpus = tf.config.list_logical_devices("GPU")
            if not gpus:
                return batches
            # The next batch is copied while this one is computed; a strategy does so by itself.
            return batches.apply(tf.data.experimental.prefetch_to_device(gpus[0].name))
        parts = batches.rebatch(batch_size // self.replicas)
        if batches.cardinality() == tf.data.INFINITE_CARDINALITY:
            counted = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
            parts = parts.apply(counted)  # told again, or each batch would be asked for its end
        return self.strategy.distribute_datasets_from_function(lambda context: parts)


def choose_devices(settings: TrainingSettings) -> Devices:
    """Choose what `training.devices`, `training.strategy` and TF_CONFIG ask for.

    To be called before TensorFlow computes anything: afterwards devices can neither be hidden nor
    machines be joined. Raises `UserError` for devices that are not here, and for a batch that they
    cannot share.
    """
    cluster = read_cluster()
    gpus = _hide_other_gpus(settings.devices)
    if settings.strategy == "multi_worker" and cluster is None:
        raise UserError(
            "training.strategy=multi_worker, but the environment variable TF_CONFIG names no "
            "several workers: set it on each machine (docs/distributed.md), or use strategy=auto."
        )
    if cluster and settings.strategy in ("auto", "multi_worker"):
        devices = _join(cluster)
    else:
        devices = _choose_on_this_machine(settings, gpus)
    _check_batch_size(settings, devices.replicas)
    return devices


def _hide_other_gpus(setting: str) -> list[tf.config.PhysicalDevice]:
    """Hide the GPUs that are not to be used, and return the others."""
    gpus = tf.config.list_physical_devices("GPU")
    if setting == "cpu":
        wanted = []
    elif setting.startswith("gpu:"):
        number = int(setting.removeprefix("gpu:"))
        if number >= len(gpus):
            here = f"{len(gpus)} GPU(s), numbered from 0" if gpus else "no GPU"
            raise UserError(
                f"training.devices={setting}, but TensorFlow sees {here} (kerasseg doctor): use "
                "training.devices=auto."
            )
        wanted = [gpus[number]]
    else:
        wanted = gpus
    if wanted != gpus:
        try:
            tf.config.set_visible_devices(wanted, "GPU")
        except RuntimeError:
            raise UserError(
                f"training.devices={setting} cannot be set any more, because TensorFlow has "
                "computed already in this process: call choose_devices first."
            ) from None
    return wanted


def _join(cluster: Cluster) -> Devices:
    """Wait for the other machines and join them."""
    chief = " (the chief)" if cluster.worker == 0 else ""
    print(
        f"Waiting for all {cluster.workers} workers of TF_CONFIG; this is worker "
        f"{cluster.worker}{chief}, {cluster.addresses[cluster.worker]} …",
        flush=True,
    )
    wait_for_workers(cluster)
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except (RuntimeError, tf.errors.OpError) as error:
        why = str(error).splitlines()[0]
        raise UserError(
            f"The {cluster.workers} workers of TF_CONFIG could not be joined ({why}): start all of "
            "them again when no process of an earlier run is left."
        ) from error
    if threading.current_thread() is threading.main_thread():
        # TensorFlow has put a handler in its place under which SIGTERM does nothing.
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
    return Devices(strategy, f"TF_CONFIG names {cluster.workers} workers", cluster)


def _choose_on_this_machine(settings: TrainingSettings, gpus: list[Any]) -> Devices:
    kind = "GPU" if gpus else "CPU"
    # Several logical CPUs are there only if somebody has asked TensorFlow for them.
    names = [device.name for device in tf.config.list_logical_devices(kind)]
    if settings.strategy == "none" and len(names) > 1:
        raise UserError(
            f"training.strategy=none, but {len(names)} {kind}s are to be used: choose one with "
            "training.devices=gpu:0, or use strategy=auto."
        )
    if len(names) > 1 or settings.strategy == "mirrored":
        return Devices(_mirrored(*names), f"{len(names)} {kind}{'s' * (len(names) > 1)}")
    return Devices(tf.distribute.get_strategy(), f"one {kind}")


@cache  # of two over the same devices in one process TensorFlow mistakes the sums for each other
def _mirrored(*names: str) -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(names)


def _check_batch_size(settings: TrainingSettings, replicas: int) -> None:
    """Raise `UserError` if the replicas cannot share a batch, or a compiled step."""
    size = settings.batch_size
    if size % replicas:
        nearest = [n for n in (size // replicas * replicas, -(-size // replicas) * replicas) if n]
        raise UserError(
            f"training.batch_size {size} is over all devices together and cannot be shared by "
            f"{replicas} of them: use {' or '.join(map(str, nearest))}."
        )
    if settings.jit_compile is True and replicas > 1:
        raise UserError(
            f"training.jit_compile=true does not work on {replicas} devices: TensorFlow compiles "
            "no step of several devices; use jit_compile=auto, or one device (training.devices)."
        )


def device_name() -> str:
    """Return the names of the GPUs, or of the processor with its number of cores."""
    gpus = tf.config.get_visible_devices("GPU")
    if gpus:
        names = [
            tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in gpus
        ]
        return ", ".join(names)
    return f"CPU ({_processor()}, {usable_cores()} cores)"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
