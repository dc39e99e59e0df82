"""What the machines that train together tell each other."""

import difflib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from kerasseg.errors import UserError
from kerasseg.training.cluster import Cluster

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
