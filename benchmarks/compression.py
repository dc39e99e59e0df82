"""What `records.compression` costs and saves: bytes, time to convert, patches a second."""

import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.conversion import DATA, copy_nifti
from benchmarks.subprocess_json import measure
from kerasseg.config.experiment import Experiment
from kerasseg.config.load import load_experiment

CASES, PATCHES, ROUNDS = 4, 96, 3
KINDS = ("none", "zlib")


def run() -> str:
    """Markdown table with a row for each kind of compression."""
    if not DATA.is_dir():
        return f"## Compression\n\nNot run: the real case is not here ({DATA} is missing)."
    folder = Path(tempfile.mkdtemp(prefix="kerasseg-bench-"))
    try:
        copy_nifti(folder / "raw", CASES)
        made = {k: measure("benchmarks.compression", "convert", str(folder), k) for k in KINDS}
        rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for _ in range(ROUNDS):
            for kind, results in rates.items():
                done = measure("benchmarks.compression", "read", str(folder), kind)
                results.append(done["rate"])
    finally:
        shutil.rmtree(folder)
    rows = "\n".join(
        f"| `{kind}` | {made[kind]['bytes'] / CASES / 1e6:.1f} MB | "
        f"{made[kind]['seconds'] / CASES:.2f} s | {statistics.median(rates[kind]):.1f} |"
        for kind in KINDS
    )
    return (
        f"## `records.compression`, BraTS2021_00006 {CASES} times (median of {ROUNDS})\n\n"
        "| | bytes per case | conversion per case | 64x160x160x4 patches/s |\n|---|---|---|---|\n"
        f"{rows}"
    )


def experiment(folder: Path, kind: str) -> Experiment:
    """The copies, stored with one kind of compression."""
    return load_experiment(
        None,
        [
            "data.layout=brats_nifti",
            f"data.root={folder / 'raw'}",
            f"records.root={folder / kind}",
            f"records.compression={kind}",
        ],
    )


def main(what: str, folder: str, kind: str) -> None:
    """Convert, or read patches; prints seconds and bytes, or patches a second, as JSON."""
    from kerasseg.records.store import open_store

    wanted = experiment(Path(folder), kind)
    started = time.perf_counter()
    store = open_store(wanted)
    if what == "convert":
        seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds, "bytes": sum(store.manifest.shards.values())}))
        return
    from kerasseg.tensorflow_setup import start_tensorflow

    start_tensorflow()
    from kerasseg.pipeline.batches import TrainingBatches

    batches = iter(
        TrainingBatches(
            store, list(store.rows), wanted.pipeline, target="subregions", batch_size=2, seed=0
        ).dataset()
    )
    for _ in range(4):
        next(batches)
    started = time.perf_counter()
    for _ in range(PATCHES // 2):
        next(batches)
    print(json.dumps({"rate": PATCHES / (time.perf_counter() - started)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
