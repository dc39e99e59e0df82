"""What a visitor of `kerasseg app` waits for, and the server's memory over many scans.

`python -m benchmarks app RUN --scan FOLDER_OR_FILES... --times 20` starts the page on a run, sends
the scan, has it segmented, and repeats that in one session.
"""

import argparse
import http.client
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psutil

POLL_SECONDS = 0.05


class Visitor:
    """A browser without a page: it keeps its cookie and asks for addresses."""

    def __init__(self, address: str) -> None:
        self._host = urlsplit(address).netloc
        self._cookie = ""
        _, self._cookie = self._send("GET", "/", b"")

    def _send(self, method: str, path: str, body: bytes, kind: str = "") -> tuple[bytes, str]:
        connection = http.client.HTTPConnection(self._host, timeout=600)
        headers = {"cookie": self._cookie} | ({"content-type": kind} if kind else {})
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        found = answer.read()
        connection.close()
        if answer.status != http.client.OK:
            sys.exit(f"{path}: {answer.status} {found.decode(errors='replace')}")
        return found, (answer.getheader("set-cookie") or "").split(";")[0]

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Return the JSON of an answer."""
        text = b"" if body is None else json.dumps(body).encode()
        return json.loads(self._send(method, path, text, "application/json")[0])

    def send_scan(self, files: list[Path]) -> str:
        """Send the files of a scan with the roles that the page guesses; return the scan's id."""
        sizes = {file.name: file.stat().st_size for file in files}
        roles = {e["name"]: e["role"] for e in self.ask("POST", "/api/look", {"files": sizes})}
        for file in files:
            path = f"/api/files?name={quote(file.name)}&role={roles.get(file.name, '')}"
            self._send("PUT", path, file.read_bytes())
        scan: str = self.ask("POST", "/api/scans", {"run": 0})["id"]
        return scan

    def job(self, scan: str) -> Iterator[dict[str, Any]]:
        """Start a prediction and yield its state again and again, until it has ended."""
        job = self.ask("POST", "/api/jobs", {"scan": scan, "run": 0})
        while True:
            jobs = self.ask("GET", "/api/state")["jobs"]
            (job,) = [other for other in jobs if other["id"] == job["id"]]
            yield job
            if job["state"] not in ("waiting", "running"):
                return
            time.sleep(POLL_SECONDS)


def main(arguments: list[str]) -> None:
    """Print a Markdown table with a row for each time that the scan was segmented."""
    parser = argparse.ArgumentParser("python -m benchmarks app", description=__doc__)
    parser.add_argument("run", help="run folder")
    parser.add_argument("--scan", nargs="+", type=Path, required=True, help="files, or a folder")
    parser.add_argument("--times", type=int, default=1, help="how often it is segmented")
    given = parser.parse_args(arguments)
    files = [
        f for path in given.scan for f in (sorted(path.iterdir()) if path.is_dir() else [path])
    ]
    files = [file for file in files if not re.search(r"seg\.nii|_mask\.", file.name)]
    command = [sys.executable, "-m", "kerasseg", "app", given.run, "--port", "0"]
    started = time.monotonic()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        line = server.stderr.readline()
        if not (address := re.search(r"http://\S+", line)):
            sys.exit(line)
        visitor = Visitor(address[0])
        answered = time.monotonic() - started
        process = psutil.Process(server.pid)
        print(f"The page answers after {answered:.1f} s, {_processor(process):.1f} s of processor.")
        while visitor.ask("GET", "/healthz")["status"] != "ready":
            time.sleep(POLL_SECONDS)
        print(f"Its network is ready after {time.monotonic() - started:.1f} s.\n")
        print("| | sent | first per cent | done | processor | memory | not files |")
        print("|---|---|---|---|---|---|---|")
        for number in range(1, given.times + 1):
            print(f"| {number} | {_segment(visitor, process, files)} |", flush=True)
        server.terminate()


def _segment(visitor: Visitor, process: psutil.Process, files: list[Path]) -> str:
    """Send and segment a scan; return the cells of its row."""
    started, used = time.monotonic(), _processor(process)
    scan = visitor.send_scan(files)
    asked, first = time.monotonic(), None
    for job in visitor.job(scan):
        if first is None and (job["progress"] > 0 or job["state"] == "done"):
            first = time.monotonic() - asked
    if job["state"] != "done":
        sys.exit(f"The prediction failed: {job}")
    done = time.monotonic() - asked
    memory = process.memory_info()
    cells = [f"{seconds:.2f} s" for seconds in (asked - started, first or done, done)]
    cells.append(f"{_processor(process) - used:.1f} s")
    return " | ".join(
        [*cells, f"{memory.rss >> 20} MiB", f"{(memory.rss - memory.shared) >> 20} MiB"]
    )


def _processor(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
