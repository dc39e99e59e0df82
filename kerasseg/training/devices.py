"""What a run computes on: one device, several, or several machines."""

import difflib
import json
import platform
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from kerasseg.errors import UserError
from kerasseg.runtime import usable_cores
from kerasseg.settings.training import TrainingSettings
from kerasseg.training.cluster import Cluster, read_cluster
from kerasseg.training.wait_for_workers import wait_for_workers

Result = TypeVar("Result")

_LOSSES = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
)
_FROM_OUTSIDE = re.compile(r"/job:|collective|coordination|grpc", re.IGNORECASE)
"""What tells such an error from one of this machine itself."""


@dataclass(frozen=True)
class Devices:
    """A tf.distribute strategy, why it was chosen, and this process's place in it.

    A replica is a device that has a copy of the network and sees its part of each batch. `cluster`
    are the machines; None for this one alone.

    What is done together (`chief_first`, `check_same`, `anywhere`, `from_chief`, `meet`) must be
    done by every machine, in the same order.
    """

    strategy: tf.distribute.Strategy
    reason: str
    cluster: Cluster | None = None

    @property
    def worker(self) -> int:
        """The number of this machine."""
        return self.cluster.worker if self.cluster else 0

    @property
    def workers(self) -> int:
        """The number of machines."""
        return self.cluster.workers if self.cluster else 1

    @property
    def chief(self) -> bool:
        """Whether this process writes checkpoints and logs."""
        return self.worker == 0

    @property
    def replicas(self) -> int:
        """Devices that train, on all machines together."""
        return int(self.strategy.num_replicas_in_sync)

    @property
    def words(self) -> str:
        """For people."""
        name = type(self.strategy).__name__.replace("CollectiveAllReduce", "MultiWorkerMirrored")
        plain = self.strategy is tf.distribute.get_strategy()
        return f"{'no strategy' if plain else name} ({self.reason})"

    def distribute(self, batches: tf.data.Dataset, batch_size: int) -> Any:
        """Batches of this machine -> batches whose parts go to its replicas.

        `batch_size` is that of all machines together.
        """
        if self.replicas == 1:
            return batches
        parts = batches.rebatch(batch_size // self.replicas)
        if batches.cardinality() == tf.data.INFINITE_CARDINALITY:
            counted = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
            parts = parts.apply(counted)  # told again, or each batch would be asked for its end
        return self.strategy.distribute_datasets_from_function(lambda context: parts)

    def chief_first(self, work: Callable[[], Result]) -> Result:
        """Do `work` on the chief, then on the other machines, which find there what it made."""
        if not self.chief:
            self.meet()
            return work()
        result = work()
        self.meet()
        return result

    def check_same(self, what: str, value: str) -> None:
        """Raise `UserError` on every machine if `value` is not the same on all of them."""
        values = self._texts_of_all(value)
        for worker, other in enumerate(values):
            if other != values[0]:
                raise UserError(
                    f"The {self.workers} machines of TF_CONFIG do not have the same {what}: "
                    f"{_difference(values[0], other)} on the chief and on worker {worker}. Start "
                    "all of them with the same command, config and versions, on a shared folder."
                )

    def from_chief(self, make: Callable[[], dict[str, float]]) -> dict[str, float]:
        """What `make` gives on the chief, which alone calls it, on every machine."""
        values = {name: float(value) for name, value in make().items()} if self.chief else {}
        told: dict[str, float] = json.loads(self._texts_of_all(json.dumps(values))[0])
        return told

    def anywhere(self, here: bool) -> bool:
        """Whether it is so on one machine at least."""
        return here if self.workers == 1 else bool(self._sum([here])[0])

    def meet(self) -> None:
        """Wait for all machines."""
        self.anywhere(False)

    def let_go(self) -> None:
        """Let the machines that wait in `meet` end; one that is gone already does not matter."""
        with suppress(*_LOSSES):
            self.meet()

    @contextmanager
    def loss_explained(self) -> Iterator[None]:
        """Within it an error of TensorFlow that comes from the loss of a machine is a
        `UserError`."""
        try:
            yield
        except _LOSSES as error:
            if not (self.cluster and _FROM_OUTSIDE.search(str(error))):
                raise
            gone = [
                f"worker {n} ({self.cluster.addresses[n]})"
                for n in self.cluster.named_in(str(error))
            ]
            raise UserError(
                f"Lost {' and '.join(gone) or 'a worker'} of the {self.workers} in TF_CONFIG, so "
                f"this one (worker {self.worker}) cannot go on: the output of the one that was "
                "lost says why. Start all of them again with --resume."
            ) from error

    def _texts_of_all(self, text: str) -> list[str]:
        """The text of each machine."""
        if self.workers == 1:
            return [text]
        own = np.frombuffer(text.encode(), np.uint8)
        sizes = np.zeros(self.workers)
        sizes[self.worker] = len(own)
        sizes = self._sum(sizes).astype(int)
        # Rounded up, as TensorFlow traces each length anew.
        letters = np.zeros((self.workers, (sizes.max() // 4096 + 1) * 4096))
        letters[self.worker, : len(own)] = own
        rows = self._sum(letters).astype(np.uint8)
        return [row[:size].tobytes().decode() for row, size in zip(rows, sizes, strict=True)]

    def _sum(self, numbers: Any) -> Any:
        """Sums over the machines of integers below 2^21, which are exact in float32."""
        numbers = tf.constant(numbers, tf.float32)
        return np.rint(self._sum_over_replicas(numbers).numpy() * self.workers / self.replicas)

    @cached_property
    def _sum_over_replicas(self) -> Callable[[Any], Any]:
        # One function for all calls: each collective outside of one would leave its key behind.
        @tf.function
        def sums(numbers: Any) -> Any:
            def of_replica() -> Any:
                here = numbers * 1.0  # on the replica's device
                return tf.distribute.get_replica_context().all_reduce("SUM", here)

            return self.strategy.experimental_local_results(self.strategy.run(of_replica))[0]

        return sums


def choose_devices(settings: TrainingSettings) -> Devices:
    """What `training.devices`, `training.strategy` and TF_CONFIG ask for.

    To be called before TensorFlow computes anything: afterwards devices can neither be hidden nor
    machines be joined. Raises `UserError` for devices that are not here and for a batch that they
    cannot share.
    """
    cluster = read_cluster()
    gpus = _show(settings.devices)
    if settings.strategy == "multi_worker" and cluster is None:
        raise UserError(
            "training.strategy=multi_worker, but the environment variable TF_CONFIG names no "
            "several workers: set it on each machine (docs/distributed.md), or use strategy=auto."
        )
    if cluster and settings.strategy in ("auto", "multi_worker"):
        devices = _join(cluster)
    else:
        devices = _of_this_machine(settings, gpus)
    _check(settings, devices.replicas)
    return devices


def _show(setting: str) -> list[tf.config.PhysicalDevice]:
    """Hide the GPUs that are not to be used; those that are left."""
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
    """Wait for the other machines; all of them train together."""
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


def _of_this_machine(settings: TrainingSettings, gpus: list[Any]) -> Devices:
    kind = "GPU" if gpus else "CPU"
    # Several logical CPUs are there only if somebody has asked TensorFlow for them.
    names = [device.name for device in tf.config.list_logical_devices(kind)]
    if settings.strategy == "none" and len(names) > 1:
        raise UserError(
            f"training.strategy=none, but {len(names)} {kind}s are to be used: choose one with "
            "training.devices=gpu:0, or use strategy=auto."
        )
    if len(names) > 1 or settings.strategy == "mirrored":
        strategy = tf.distribute.MirroredStrategy(names)
        return Devices(strategy, f"{len(names)} {kind}{'s' * (len(names) > 1)}")
    return Devices(tf.distribute.get_strategy(), f"one {kind}")


def _difference(one: str, other: str) -> str:
    """The first lines that differ."""
    lines = difflib.ndiff(one.splitlines(), other.splitlines())
    changed = [line for line in lines if line[0] in "+-"]
    here = next((line[2:].strip() for line in changed if line[0] == "-"), "nothing")
    there = next((line[2:].strip() for line in changed if line[0] == "+"), "nothing")
    return f"'{here}' and '{there}'"


def _check(settings: TrainingSettings, replicas: int) -> None:
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
    """The GPUs, or the processor with its number of cores."""
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
