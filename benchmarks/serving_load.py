"""`python -m benchmarks serving_load`: eight clients at once, no error, flat memory.

`python -m benchmarks.serving_load 60` says for how many seconds. Half of the clients speak gRPC,
half REST; every answer is compared with the expected one. The server is `kerasseg serve` in a
process of its own, with a model that does next to nothing, so that the server is what is measured.
"""

import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from benchmarks.serving_process import ROOT, serving

CLIENTS = 8
SHAPE = (40, 64, 56)
SECONDS = 60.0


@dataclass
class Load:
    """The answers so far, and the memory of the server's process in MiB, each half second."""

    requests: int = 0
    errors: list[str] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def growth(self) -> float:
        """Return the median memory of the last quarter less that of the second one, in MiB."""
        quarter = max(len(self.memory) // 4, 1)
        second = np.median(self.memory[quarter : 2 * quarter])
        return float(np.median(self.memory[-quarter:]) - second)


def run(seconds: float = SECONDS) -> str:
    """Return a Markdown table of a minute, or of `seconds`."""
    with tempfile.TemporaryDirectory(prefix="kerasseg-bench-") as folder:
        write_model_elsewhere(Path(folder) / "kerasseg" / "1")
        with serving(Path(folder)) as server:
            load = make_load(server.grpc, server.rest, server.process.pid, seconds)
    if load.errors:
        sys.exit(f"{len(load.errors)} errors, the first: {load.errors[0]}")
    slowest = 1000 * max(load.seconds)
    middle = 1000 * float(np.median(load.seconds))
    return (
        f"## kerasseg serve under {CLIENTS} clients for {seconds:g} s\n\n"
        "| requests | errors | median | slowest | memory at the start | at the end | last quarter "
        "against the second |\n|---|---|---|---|---|---|---|\n"
        f"| {load.requests} | {len(load.errors)} | {middle:.0f} ms | {slowest:.0f} ms | "
        f"{load.memory[0]:.0f} MiB | {load.memory[-1]:.0f} MiB | {load.growth():+.1f} MiB |"
    )


def write_model_elsewhere(folder: Path, *arguments: str) -> None:
    """Write the small model in another process: this one needs no TensorFlow."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.serving_model", str(folder), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr)


def make_load(grpc: int, rest: int, process: int, seconds: float) -> Load:
    """Let eight clients ask for `seconds`, over both protocols, and return what happened."""
    from kerasseg.serving.client import Client

    image = np.random.default_rng(0).integers(0, 200, (*SHAPE, 4)).astype(np.float32)
    tumour, enhancing = image[..., 0] > 100, image[..., 1] > 100
    expected = np.where(tumour, np.where(enhancing, 3, 1), 0)
    load, lock, until = Load(), threading.Lock(), time.monotonic() + seconds

    def ask(number: int) -> None:
        port = rest if number % 2 else grpc
        with Client(f"127.0.0.1:{port}", rest=bool(number % 2), retries=0, deadline=30.0) as client:
            while time.monotonic() < until:
                started = time.perf_counter()
                try:
                    right = np.array_equal(client.predict(image).label, expected)
                    error = "" if right else "another label than expected"
                except Exception as found:
                    error = f"{type(found).__name__}: {found}"
                with lock:
                    load.requests += 1
                    load.seconds.append(time.perf_counter() - started)
                    if error:
                        load.errors.append(error)

    def ask_or_say(number: int) -> None:
        try:
            ask(number)
        except Exception as found:
            load.errors.append(f"client {number} ended: {type(found).__name__}: {found}")

    threads = [threading.Thread(target=ask_or_say, args=(n,)) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    watched = psutil.Process(process)
    while any(thread.is_alive() for thread in threads):
        load.memory.append(watched.memory_info().rss / 2**20)
        time.sleep(0.5)
    return load


if __name__ == "__main__":
    print(run(*map(float, sys.argv[1:])))
