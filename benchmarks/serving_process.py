"""`kerasseg serve` in a process of its own, for benchmarks and tests."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).resolve().parents[1]
_PORTS = re.compile(r"gRPC \S+?:(\d+), REST https?://\S+?:(\d+)\.")
_START_SECONDS = 120.0


class Process(Protocol):
    """What is asked of a process; a `subprocess.Popen` has all of it."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float, /) -> int: ...
    def send_signal(self, number: int, /) -> None: ...
    def kill(self) -> None: ...


@dataclass
class ServingProcess:
    """A running server; `said` returns what it has written so far."""

    process: Process
    said: Callable[[], str]
    grpc: int = 0
    rest: int = 0

    @property
    def lines(self) -> list[str]:
        """Return the whole lines that it has written so far."""
        return self.said().rpartition("\n")[0].splitlines()

    def wait_for(self, words: str, seconds: float = _START_SECONDS) -> str:
        """Return the first line that holds `words`, or raise `TimeoutError` with all lines."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for line in self.lines:
                if words in line:
                    return line
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise TimeoutError(f"{words!r} was not said, but: {self.lines}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(90)


def start_process(arguments: Sequence[str]) -> tuple[Process, Callable[[], str]]:
    """Start `python ARGUMENT…` and return it with a function of what it has written so far."""
    with tempfile.NamedTemporaryFile("w", delete=False) as errors:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stderr=errors,
            cwd=ROOT,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
        )
    path = Path(errors.name)
    weakref.finalize(process, path.unlink)
    return process, path.read_text


@contextmanager
def serving(
    models: Path,
    *options: str,
    start: Callable[..., tuple[Process, Callable[[], str]]] = start_process,
) -> Iterator[ServingProcess]:
    """Start `kerasseg serve` on free ports, or those in `options`; SIGTERM at the end."""
    ports = ("--grpc-port", "0", "--rest-port", "0")
    server = ServingProcess(*start(["-m", "kerasseg.cli", "serve", str(models), *ports, *options]))
    try:
        match = _PORTS.search(server.wait_for("Serving "))
        assert match
        server.grpc, server.rest = int(match[1]), int(match[2])
        yield server
    finally:
        try:
            server.stop()
        finally:
            server.process.kill()
