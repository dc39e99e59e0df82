"""The memory of a search does not grow with its trials: 20 tiny ones, each a process of its own."""

import json
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil

TRIALS = 20
ALLOWED = 1.10
SMALL = (
    "search.tuner=random",
    f"search.max_trials={TRIALS}",
    "search.baseline=false",
    "search.name=memory",
    "search.space.loss=null",
    "search.space.model.features={choice: [[4, 6], [6, 8]]}",
    "data.phantom={cases: 8, shape: [16,32,28]}",
    "pipeline.patch_size=[32,32]",
    "pipeline.patches_per_volume=4",
    "pipeline.validation_patches_per_volume=2",
    "model.features=[4,6]",
    "model.bottleneck=8",
    "training.epochs=1",
)


def run() -> str:
    """Return a Markdown table: memory of the search at each fifth trial, and the trials' peaks."""
    folder = Path(tempfile.mkdtemp(prefix="kerasseg-bench-"))
    try:
        after = _search(folder)
        records = [
            json.loads(path.read_text()) for path in (folder / "memory" / "trials").glob("*.json")
        ]
    finally:
        shutil.rmtree(folder)
    records.sort(key=lambda record: record["number"])
    peaks = [record["executions"][0]["peak_memory_gib"] for record in records]
    shown = [1, *range(5, TRIALS + 1, 5)]
    rows = "\n".join(f"| {n} | {after[n]:.3f} GiB | {peaks[n - 1]:.3f} GiB |" for n in shown)
    ratio = after[TRIALS] / after[1]
    verdict = "holds" if ratio <= ALLOWED else "FAILS"
    return (
        f"## Memory of a search over {TRIALS} trials\n\n"
        "| trials done | the search's process | peak of that trial's own process |\n|---|---|---|\n"
        f"{rows}\n\nAfter the last trial {ratio:.3f} of after the first; at most {ALLOWED:.2f} is "
        f"promised: {verdict}."
    )


def _search(folder: Path) -> dict[int, float]:
    """Return the number of trials done -> resident memory of the search's process in GiB."""
    settings = [f"search.root={folder}", f"records.root={folder / 'store'}", *SMALL]
    process = subprocess.Popen([sys.executable, "tune.py", *settings], stdout=sys.stderr)
    seen: dict[int, float] = {}
    over = threading.Event()

    def look() -> None:
        watched = psutil.Process(process.pid)
        while not over.wait(0.2):
            paths = list((folder / "memory" / "trials").glob("[!.]*.json"))
            done = sum('"completed"' in path.read_text() for path in paths)
            try:
                seen[done] = watched.memory_info().rss / 2**30
            except psutil.NoSuchProcess:
                return

    thread = threading.Thread(target=look)
    thread.start()
    code = process.wait()
    over.set()
    thread.join()
    if code or TRIALS not in seen:
        raise RuntimeError(f"the search ended with code {code} after {max(seen, default=0)} trials")
    return seen
