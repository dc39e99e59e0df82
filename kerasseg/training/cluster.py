"""The machines that train together, as TF_CONFIG names them."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
