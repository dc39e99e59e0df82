"""Waiting for the other machines, where Ctrl-C and SIGTERM still work.

The machines that train together, as TF_CONFIG names them.

What the machines that train together tell each other.
"""

import difflib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
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
    """This process among the processes that train one network; `worker` 0 is the chief.

    addresses: host:port of all of them
    tasks:     what TensorFlow calls them in its messages, such as (worker, 0)
    """

    worker: int
    addresses: tuple[str, ...]
    tasks: tuple[tuple[str, int], ...]

    @property
    def workers(self) -> int:
        """How many there are."""
        return len(self.addresses)

    def named_in(self, message: str) -> list[int]:
        """The other workers that a message of TensorFlow names, such as
        `/job:worker/replica:0/task:1`."""
        found = re.findall(r"/job:(\w+)/(?:replica:\d+/)?task:(\d+)", message)
        named = {(kind, int(index)) for kind, index in found}
        return [i for i, task in enumerate(self.tasks) if task in named and i != self.worker]


def read_cluster(environment: Mapping[str, str] = os.environ) -> Cluster | None:
    """The cluster of the environment variable TF_CONFIG; None without it or with one worker.

    Raises `UserError` that says what is wrong with it.
    """
    text = environment.get("TF_CONFIG", "").strip()
    if not text:
        return None
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise _mistake(f"is not valid JSON ({error})") from None
    tasks = config.get("cluster") if isinstance(config, dict) else None
    if not isinstance(tasks, dict) or not tasks:
        raise _mistake(f"names no cluster, found {text}")
    if unknown := set(tasks) - {"chief", "worker"}:
        raise _mistake(
            f"has tasks of type {', '.join(sorted(unknown))}; every machine that trains is a worker"
        )
    members: list[tuple[str, int]] = []
    addresses: list[str] = []
    for kind in ("chief", "worker"):
        listed = tasks.get(kind, [])
        if not isinstance(listed, list) or not all(_is_address(a) for a in listed):
            raise _mistake(f"must list {kind} as host:port, found {listed}")
        members += [(kind, index) for index in range(len(listed))]
        addresses += listed
    if len(tasks.get("chief", [])) > 1:
        raise _mistake(f"has {len(tasks['chief'])} chiefs; one is enough, or none")
    if len(set(addresses)) < len(addresses):
        raise _mistake(f"lists an address twice: {addresses}")
    worker = _index(config.get("task"), tasks)
    return Cluster(worker, tuple(addresses), tuple(members)) if len(addresses) > 1 else None


def _index(task: Any, tasks: dict[str, list[str]]) -> int:
    """The place of this process among all of them."""
    kind, index = (task.get(k) for k in ("type", "index")) if isinstance(task, dict) else (0, 0)
    listed = tasks.get(kind, []) if isinstance(kind, str) else []
    if type(index) is not int or not 0 <= index < len(listed):
        count = {name: len(addresses) for name, addresses in tasks.items()}
        raise _mistake(f"has the task {task}, which is none of its tasks {count}")
    return index if kind == "chief" else index + len(tasks.get("chief", []))


def _is_address(text: Any) -> bool:
    return (
        isinstance(text, str)
        and re.fullmatch(r"(\[[\da-fA-F:]+\]|[\w.-]+):\d{1,5}", text) is not None
    )


def _mistake(what: str) -> UserError:
    return UserError(
        f"The environment variable TF_CONFIG {what}. Expected something like {_EXAMPLE}, or unset "
        "it to train on this machine alone."
    )


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


class Machines:
    """This machine among the others; it is alone if `cluster` is None.

    What is done together (`chief_first`, `check_same`, `anywhere`, `from_chief`, `meet`) must be
    done by every machine, in the same order.
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
        """Whether this process writes checkpoints and logs."""
        return self.worker == 0

    @property
    def replicas(self) -> int:
        """Devices that train, on all machines together."""
        return int(self.strategy.num_replicas_in_sync)

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
                # All come here. One that ended at once would be lost to a slower one, which might
                # not have its values yet, and would say so instead of this.
                self.let_go()
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
        @tf.function(autograph=False)
        def sums(numbers: Any) -> Any:
            def of_replica() -> Any:
                here = numbers * 1.0  # on the replica's device
                return tf.distribute.get_replica_context().all_reduce("SUM", here)

            return self.strategy.experimental_local_results(self.strategy.run(of_replica))[0]

        return sums


def _difference(one: str, other: str) -> str:
    """The first lines that differ."""
    lines = difflib.ndiff(one.splitlines(), other.splitlines())
    changed = [line for line in lines if line[0] in "+-"]
    here = next((line[2:].strip() for line in changed if line[0] == "-"), "nothing")
    there = next((line[2:].strip() for line in changed if line[0] == "+"), "nothing")
    return f"'{here}' and '{there}'"


_CONNECT_SECONDS = 2.0
_PAUSE_SECONDS = 0.2
_REPORT_SECONDS = 30.0


def wait_for_workers(cluster: Cluster) -> None:
    """Return when every other worker has answered at its address; says which have not yet.

    TensorFlow waits by itself, but in C++, holding Python's lock: it says nothing, and neither
    Ctrl-C nor SIGTERM ends it. Here each worker listens at its own port until all others have
    answered; TensorFlow's server takes the port over. Raises `UserError` if the port is taken.
    """
    own = cluster.addresses[cluster.worker]
    try:
        listener = socket.create_server(("", _port(own)), backlog=len(cluster.addresses))
    except OSError as error:
        raise UserError(
            f"Worker {cluster.worker} of TF_CONFIG cannot listen at {own} ({_words(error)}): is "
            "an earlier run still there? End it, or give another port in every worker's TF_CONFIG."
        ) from None
    with listener:
        threading.Thread(target=_answer, args=(listener,), daemon=True).start()
        missing = {n: a for n, a in enumerate(cluster.addresses) if n != cluster.worker}
        report = time.monotonic() + _REPORT_SECONDS
        while missing:
            problems = {n: _problem(address) for n, address in missing.items()}
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
    """Accept who asks; that it is there is all the answer."""
    with suppress(OSError):
        while True:
            listener.accept()[0].close()


def _problem(address: str) -> str:
    """Why nobody answers there; empty if somebody does."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        socket.create_connection((host, _port(address)), _CONNECT_SECONDS).close()
    except OSError as error:
        return _words(error)
    return ""


def _words(error: OSError) -> str:
    known = error.errno is not None and error.errno > 0  # those of the resolver are not
    return os.strerror(error.errno or 0) if known else error.strerror or str(error)


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])
