"""Machines that train together: who they are, how they wait for each other and exchange values."""

import hashlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from kerasseg.errors import UserError

_EXAMPLE = (
    '{"cluster": {"worker": ["host0:12345", "host1:12345"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


@dataclass(frozen=True)
class Cluster:
    """This process among the processes that train one network.

    Attributes:
        worker: The number of this process; 0 is the chief.
        addresses: host:port of all of them.
        tasks: What TensorFlow calls them in its messages, such as (worker, 0).
    """

    worker: int
    addresses: tuple[str, ...]
    tasks: tuple[tuple[str, int], ...]

    @property
    def workers(self) -> int:
        """The number of processes."""
        return len(self.addresses)

    def workers_in_message(self, message: str) -> list[int]:
        """Return the other workers that a message of TensorFlow names, such as
        `/job:worker/replica:0/task:1`."""
        found = re.findall(r"/job:(\w+)/(?:replica:\d+/)?task:(\d+)", message)
        named = {(kind, int(index)) for kind, index in found}
        return [i for i, task in enumerate(self.tasks) if task in named and i != self.worker]


def read_cluster(environment: Mapping[str, str] = os.environ) -> Cluster | None:
    """Read the cluster of the environment variable TF_CONFIG.

    Returns the cluster, or None without the variable or with a single worker. Raises `UserError` if
    the variable is wrong; the message says how.
    """
    text = environment.get("TF_CONFIG", "").strip()
    if not text:
        return None
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise _tf_config_error(f"is not valid JSON ({error})") from None
    tasks = config.get("cluster") if isinstance(config, dict) else None
    if not isinstance(tasks, dict) or not tasks:
        raise _tf_config_error(f"names no cluster, found {text}")
    if unknown := set(tasks) - {"chief", "worker"}:
        raise _tf_config_error(
            f"has tasks of type {', '.join(sorted(unknown))}; every machine that trains is a worker"
        )
    members: list[tuple[str, int]] = []
    addresses: list[str] = []
    for kind in ("chief", "worker"):
        listed = tasks.get(kind, [])
        if not isinstance(listed, list) or not all(_is_address(a) for a in listed):
            raise _tf_config_error(f"must list {kind} as host:port, found {listed}")
        members += [(kind, index) for index in range(len(listed))]
        addresses += listed
    if len(tasks.get("chief", [])) > 1:
        raise _tf_config_error(f"has {len(tasks['chief'])} chiefs; one is enough, or none")
    if len(set(addresses)) < len(addresses):
        raise _tf_config_error(f"lists an address twice: {addresses}")
    worker = _worker_number(config.get("task"), tasks)
    return Cluster(worker, tuple(addresses), tuple(members)) if len(addresses) > 1 else None


def _worker_number(task: Any, tasks: dict[str, list[str]]) -> int:
    """Return the number of this process among all of them, the chief first."""
    kind, index = (task.get(k) for k in ("type", "index")) if isinstance(task, dict) else (0, 0)
    listed = tasks.get(kind, []) if isinstance(kind, str) else []
    if type(index) is not int or not 0 <= index < len(listed):
        count = {name: len(addresses) for name, addresses in tasks.items()}
        raise _tf_config_error(f"has the task {task}, which is none of its tasks {count}")
    return index if kind == "chief" else index + len(tasks.get("chief", []))


def _is_address(text: Any) -> bool:
    return (
        isinstance(text, str)
        and re.fullmatch(r"(\[[\da-fA-F:]+\]|[\w.-]+):\d{1,5}", text) is not None
    )


def _tf_config_error(what: str) -> UserError:
    return UserError(
        f"The environment variable TF_CONFIG {what}. Expected something like {_EXAMPLE}, or unset "
        "it to train on this machine alone."
    )


Result = TypeVar("Result")

_ERRORS_OF_A_LOSS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
)
_ABOUT_A_CLUSTER = re.compile(r"/job:|collective|coordination|grpc", re.IGNORECASE)
"""Tells an error that another machine caused from one of this machine itself."""


class Machines:
    """This machine among the others; it is alone if `cluster` is None.

    Every machine must call `chief_first`, `check_same`, `any_worker`, `broadcast` and `barrier`,
    in the same order.
    """

    strategy: tf.distribute.Strategy
    cluster: Cluster | None

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
        """True for the machine that writes checkpoints and logs."""
        return self.worker == 0

    @property
    def replicas(self) -> int:
        """The number of devices that train, on all machines together."""
        return int(self.strategy.num_replicas_in_sync)

    def barrier(self) -> None:
        """Wait until every machine has come here."""
        self.any_worker(False)

    def final_barrier(self) -> None:
        """Let the machines that wait in `barrier` end; one that is gone already does not matter."""
        with suppress(*_ERRORS_OF_A_LOSS):
            self.barrier()

    def chief_first(self, work: Callable[[], Result]) -> Result:
        """Do `work` on the chief, then on the other machines, which find there what it made."""
        if not self.chief:
            self.barrier()
            return work()
        result = work()
        self.barrier()
        return result

    def any_worker(self, condition: bool) -> bool:
        """Return whether the condition holds on one machine at least."""
        return condition if self.workers == 1 else bool(self._sum([condition])[0])

    def broadcast(
        self, make: Callable[[], Mapping[str, float]], names: Sequence[str]
    ) -> dict[str, float]:
        """Call `make` on the chief alone and return its numbers of these names on every machine."""
        if self.workers == 1:
            return dict(make())
        made = make() if self.chief else dict.fromkeys(names, 0.0)
        numbers = self._sum([made[name] for name in names])
        return dict(zip(names, map(float, numbers), strict=True))

    def check_same(self, what: str, value: str, compare: str = "") -> None:
        """Raise `UserError` on every machine if `value` is not the same on all of them.

        Args:
            what: What the value is, for the message.
            value: This machine's value, of any length; only its hash is exchanged.
            compare: A sentence on how values that are too long for a message can be compared.
        """
        if self.workers == 1:
            return
        digest = hashlib.sha256(value.encode()).digest()
        hashes = np.zeros((self.workers, len(digest)))
        hashes[self.worker] = list(digest)
        hashes = self._sum(hashes)
        other = [n for n in range(self.workers) if (hashes[n] != hashes[0]).any()]
        if not other:
            return
        # All machines come here. One that ended at once would be lost to a slower one, which would
        # say that instead of this.
        self.final_barrier()
        differing = " and ".join(f"worker {n}" for n in other)
        here = f"{value!r}" if len(value) <= 200 else f"one of hash {digest.hex()[:12]}"
        compare = f" {compare}" if compare else ""
        raise UserError(
            f"The {self.workers} machines of TF_CONFIG do not have the same {what}: {differing} "
            f"and the chief differ; here (worker {self.worker}) it is {here}.{compare} Start all "
            "of them with the same command, config and versions, on a shared folder."
        )

    @contextmanager
    def explain_lost_worker(self) -> Iterator[None]:
        """Turn TensorFlow's error about a machine that is gone into a `UserError`."""
        try:
            yield
        except _ERRORS_OF_A_LOSS as error:
            if not (self.cluster and _ABOUT_A_CLUSTER.search(str(error))):
                raise
            gone = [
                f"worker {n} ({self.cluster.addresses[n]})"
                for n in self.cluster.workers_in_message(str(error))
            ]
            raise UserError(
                f"Lost {' and '.join(gone) or 'a worker'} of the {self.workers} in TF_CONFIG, so "
                f"this one (worker {self.worker}) cannot go on: the output of the one that was "
                "lost says why. Start all of them again with --resume."
            ) from error

    def _sum(self, numbers: Any) -> Any:
        """Return the sums of float64 numbers over the machines, as an array."""
        return self._sum_over_machines(tf.constant(numbers, tf.float64)).numpy()

    @cached_property
    def _sum_over_machines(self) -> Callable[[Any], Any]:
        # One function for all calls: each collective outside of one would leave its key behind.
        @tf.function(autograph=False)
        def sums(numbers: Any) -> Any:
            def of_replica() -> Any:
                context = tf.distribute.get_replica_context()
                first = context.replica_id_in_sync_group % (self.replicas // self.workers) == 0
                own = tf.where(first, numbers, 0.0)  # once for each machine, not for each device
                return context.all_reduce("SUM", own)

            return self.strategy.experimental_local_results(self.strategy.run(of_replica))[0]

        return sums


_CONNECT_SECONDS = 2.0
_PAUSE_SECONDS = 0.2
_REPORT_SECONDS = 30.0


def wait_for_workers(cluster: Cluster) -> None:
    """Return when every other worker has answered at its address; print which have not yet.

    TensorFlow waits by itself, but in C++, holding Python's lock: it says nothing, and neither
    Ctrl-C nor SIGTERM ends it. Here each worker listens at its own port until all others have
    answered; TensorFlow's server takes the port over. Raises `UserError` if the port is taken.
    """
    own = cluster.addresses[cluster.worker]
    try:
        listener = socket.create_server(("", _port(own)), backlog=len(cluster.addresses))
    except OSError as error:
        raise UserError(
            f"Worker {cluster.worker} of TF_CONFIG cannot listen at {own} ({_reason(error)}): is "
            "an earlier run still there? End it, or give another port in every worker's TF_CONFIG."
        ) from None
    with listener:
        threading.Thread(target=_answer, args=(listener,), daemon=True).start()
        missing = {n: a for n, a in enumerate(cluster.addresses) if n != cluster.worker}
        report = time.monotonic() + _REPORT_SECONDS
        while missing:
            problems = {n: _why_silent(address) for n, address in missing.items()}
            missing = {n: missing[n] for n, problem in problems.items() if problem}
            if missing and time.monotonic() > report:
                report += _REPORT_SECONDS
                who = ", ".join(f"{n} at {missing[n]} ({problems[n]})" for n in missing)
                print(f"Still waiting for worker {who}; Ctrl-C ends it.", flush=True)
            time.sleep(_PAUSE_SECONDS if missing else 0.0)
        # A thread in accept() would keep the port.
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def _answer(listener: socket.socket) -> None:
    """Accept connections and close them: that this worker is there is all the answer."""
    with suppress(OSError):
        while True:
            listener.accept()[0].close()


def _why_silent(address: str) -> str:
    """Return why nobody answers there; empty if somebody does."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        socket.create_connection((host, _port(address)), _CONNECT_SECONDS).close()
    except OSError as error:
        return _reason(error)
    return ""


def _reason(error: OSError) -> str:
    known = error.errno is not None and error.errno > 0  # those of the resolver are not
    return os.strerror(error.errno or 0) if known else error.strerror or str(error)


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])
