"""Two workers on this machine, each a process of its own, on ports that are free."""

import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.program import Program


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
            "TMPDIR": str(temporary),
            "TF_CONFIG": json.dumps(config),
            **environments[index],
        }
        processes.append(Program(own, cwd=here, env=environment))
    try:
        for process in processes:
            process.wait()
    finally:
        for process in processes:
            process.kill()
    return [Ended(p.wait(), p.stdout, p.stderr) for p in processes]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at."""
    sockets = [socket.create_server(("", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports
