"""Reading patches: the record store against memory-mapped `.npy` volumes.

Four generated phantoms of BraTS's size (155 x 240 x 240). The plain format is what most scripts
write: image (4, 155, 240, 240) float16 and mask (155, 240, 240) uint8 as `.npy`, opened with
`np.load(mmap_mode="r")`, a random crop copied out of each. Both draw 64 x 160 x 160 patches with
four modalities; both have just been written, so they come from the page cache.
"""

import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.subprocess_json import measure
from kerasseg.config.experiment import Experiment
from kerasseg.config.load import load_experiment
from kerasseg.tensorflow_setup import start_tensorflow

CASES, PATCH, PATCHES, ROUNDS = 4, (64, 160, 160), 96, 3
ALLOWED = 0.25


def run() -> str:
    """Markdown table: patches per second (median of `ROUNDS`) and bytes per case."""
    folder = Path(tempfile.mkdtemp(prefix="kerasseg-bench-"))
    try:
        sizes = measure("benchmarks.patches", "prepare", str(folder))
        names = {
            "none": "kerasseg store, 2 patches a volume",
            "zlib": "the same, records.compression=zlib",
            "npy": "`.npy`, memory-mapped",
            "whole": "`.npy`, whole volumes",
        }
        rounds: dict[str, list[float]] = {name: [] for name in names}
        bytes_read: dict[str, float] = {}
        for _ in range(ROUNDS):
            for name, rates in rounds.items():
                measured = measure("benchmarks.patches", name, str(folder))
                rates.append(measured["rate"])
                bytes_read[name] = measured["bytes"]
    finally:
        shutil.rmtree(folder)
    rate = {name: statistics.median(rates) for name, rates in rounds.items()}
    rows = "\n".join(
        f"| {title} | {rate[name]:.1f} | {sizes.get(name, sizes['npy']) / 1e6:.1f} MB | "
        f"{'mapped' if name == 'npy' else f'{bytes_read[name] / 1e6:.1f} MB'} |"
        for name, title in names.items()
    )
    share = bytes_read["none"] / bytes_read["whole"]
    verdict = "holds" if share <= ALLOWED else "FAILS"
    return (
        f"## Reading 64x160x160x4 patches (median of {ROUNDS} x {PATCHES})\n\n"
        f"| | patches/s | bytes per case | read per patch |\n|---|---|---|---|\n{rows}\n\n"
        f"Bytes read, store / whole volumes: {share:.2f}; at most {ALLOWED} is asked for: "
        f"{verdict}. "
        f"Speed ratio store / npy: {rate['none'] / rate['npy']:.2f}; size ratio "
        f"{sizes['none'] / sizes['npy']:.2f}. The store's patches are drawn around the tumour, "
        "z-scored, batched by two and checked against their checksums; the plain crops are none "
        "of that."
    )


def experiment(folder: Path, compression: str) -> Experiment:
    """Phantoms of BraTS's size, stored in `folder`."""
    return load_experiment(
        None,
        [
            f"data.phantom={{cases: {CASES}, shape: [155,240,240]}}",
            f"records.root={folder / compression}",
            f"records.compression={compression}",
        ],
    )


def prepare(folder: Path) -> dict[str, float]:
    """Write every format; returns bytes per case of each."""
    from kerasseg.datasets.discovery import discover
    from kerasseg.records.store import open_store

    stores = {name: open_store(experiment(folder, name)) for name in ("none", "zlib")}
    total = 0
    for source in discover(experiment(folder, "none").data):
        case = source.load()
        assert case.label is not None
        image = np.ascontiguousarray(case.image.transpose(3, 0, 1, 2)).astype(np.float16)
        for kind, array in (("image", image), ("mask", case.label)):
            path = folder / f"{case.case_id}_{kind}.npy"
            np.save(path, array)
            total += path.stat().st_size
    sizes = {name: sum(s.manifest.shards.values()) / CASES for name, s in stores.items()}
    return sizes | {"npy": total / CASES}


def store_patches(folder: Path, compression: str) -> Iterator[int]:
    """Batches of the training pipeline; yields patches per batch."""
    start_tensorflow()
    from kerasseg.pipeline.batches import TrainingBatches
    from kerasseg.records.store import open_store

    wanted = experiment(folder, compression)
    store = open_store(wanted)
    batches = TrainingBatches(
        store,
        list(store.rows),
        wanted.pipeline,
        target=wanted.model.target,
        batch_size=2,
        seed=0,
    )
    for image, _ in batches.dataset():
        yield int(image.shape[0])


def npy_patches(folder: Path, mapped: Literal["r"] | None) -> Iterator[int]:
    """Random crops, one by one, of volumes that are mapped or read as a whole."""
    rng = np.random.default_rng(0)
    paths = sorted(folder.glob("*_image.npy"))
    while True:
        path = paths[rng.integers(len(paths))]
        image = np.load(path, mmap_mode=mapped)
        mask = np.load(path.with_name(path.name.replace("image", "mask")), mmap_mode=mapped)
        start = [int(rng.integers(n - p + 1)) for n, p in zip(mask.shape, PATCH, strict=True)]
        box = tuple(slice(s, s + p) for s, p in zip(start, PATCH, strict=True))
        np.array(image[(slice(None), *box)])
        np.array(mask[box])
        yield 1


def main(what: str, folder: Path) -> None:
    """Print bytes per case, or patches per second after a warm-up, as JSON."""
    if what == "prepare":
        print(json.dumps(prepare(folder)))
        return
    npy: dict[str, Literal["r"] | None] = {"npy": "r", "whole": None}
    source = npy_patches(folder, npy[what]) if what in npy else store_patches(folder, what)
    taken = 0
    while taken < 8:
        taken += next(source)
    started, first, done = time.perf_counter(), bytes_asked_for(), 0
    while done < PATCHES:
        done += next(source)
    seconds = time.perf_counter() - started
    print(json.dumps({"rate": done / seconds, "bytes": (bytes_asked_for() - first) / done}))


def bytes_asked_for() -> int:
    """Bytes that this process has read by system calls so far, from the disk or its cache."""
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counts["rchar"])


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
