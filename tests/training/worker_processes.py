"""Two workers on this machine, each a process of its own, on ports that are free."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
TIMEOUT = 300
"""Seconds after which a worker that hangs fails its test."""


@dataclass
class Ended:
    """How a worker ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """The lines for the user."""
        lines = self.stderr.splitlines()
        return "\n".join(line for line in lines if line.startswith("error: "))


def run_workers(
    folder: Path,
    arguments: Sequence[Sequence[str]],
    environments: Sequence[dict[str, str]] = ({}, {}),
) -> list[Ended]:
    """Run Python with `arguments` of each worker; every one has its own empty folder to stand in
    and another, both in `folder`, for its temporary files."""
    addresses = [f"localhost:{port}" for port in free_ports(len(arguments))]
    processes = []
    for index, own in enumerate(arguments):
        task = {"type": "worker", "index": index}
        config = {"cluster": {"worker": addresses}, "task": task}
        here, temporary = folder / f"worker-{index}", folder / f"temporary-{index}"
        for made in (here, temporary):
            made.mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "-1",
            "PYTHONPATH": str(REPOSITORY),
            "TMPDIR": str(temporary),
            "TF_CONFIG": json.dumps(config),
            **environments[index],
        }
        processes.append(
            subprocess.Popen(
                [sys.executable, *own],
                cwd=here,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        outputs = [process.communicate(timeout=TIMEOUT) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [Ended(p.returncode, *output) for p, output in zip(processes, outputs, strict=True)]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at."""
    sockets = [socket.create_server(("", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports
