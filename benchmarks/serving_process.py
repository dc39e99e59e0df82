"""`kerasseg serve` in a process of its own, for benchmarks and tests."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_PORTS = re.compile(r"gRPC \S+?:(\d+), REST https?://\S+?:(\d+)\.")
_START_SECONDS = 120.0


@dataclass
class ServingProcess:
    """A running server, and the lines that it has written so far."""

    process: subprocess.Popen
    grpc: int = 0
    rest: int = 0
    lines: list[str] = field(default_factory=list)

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


@contextmanager
def serving(models: Path, *options: str) -> Iterator[ServingProcess]:
    """Start `kerasseg serve` on free ports, or those in `options`; SIGTERM at the end."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "kerasseg.cli", "serve", str(models)),
            *("--grpc-port", "0", "--rest-port", "0", *options),
        ],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
    )
    server = ServingProcess(process)
    listener = threading.Thread(target=_listen, args=(server,), daemon=True)
    listener.start()
    try:
        match = _PORTS.search(server.wait_for("Serving "))
        assert match
        server.grpc, server.rest = int(match[1]), int(match[2])
        yield server
    finally:
        try:
            server.stop()
        finally:
            process.kill()
            listener.join(5)


def _listen(server: ServingProcess) -> None:
    assert server.process.stderr is not None
    for line in server.process.stderr:
        server.lines.append(line.rstrip("\n"))
