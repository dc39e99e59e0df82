"""Raw scans -> store: against what most scripts do, against what gzip allows, and its memory.

All on copies of one real case (`../shared/data`), each made different in a few voxels, because a
store refuses the same scan under two names. Everything lies in the page cache on both sides.
"""

import gzip
import json
import multiprocessing
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import h5py
import numpy as np

from benchmarks.subprocess_json import measure
from kerasseg.tensorflow_setup import usable_cores

DATA = Path(__file__).parents[2] / "shared" / "data"
H5_COPIES, NIFTI_COPIES, FEW, ROUNDS = 4, 48, 4, 3
H5_RATIO, SIZE_RATIO, OF_GZIP = 0.8, 0.35, 0.8


def run() -> str:
    """Markdown tables of time, bytes and memory."""
    if not DATA.is_dir():
        return f"## Conversion\n\nNot run: the real case is not here ({DATA} is missing)."
    folder = Path(tempfile.mkdtemp(prefix="kerasseg-bench-"))
    try:
        copy_h5(folder / "h5")
        copy_nifti(folder / "nifti", NIFTI_COPIES)
        copy_nifti(folder / "few", FEW)
        tables = [_h5_table(folder), _nifti_table(folder), _memory_table(folder)]
    finally:
        shutil.rmtree(folder)
    return "\n\n".join(tables)


def _h5_table(folder: Path) -> str:
    rounds: dict[str, list[dict[str, float]]] = {"store": [], "npy": []}
    for _ in range(ROUNDS):
        for name, results in rounds.items():
            results.append(measure("benchmarks.conversion", name, str(folder), "brats_h5", "h5"))
    seconds = {n: statistics.median(r["seconds"] for r in rs) for n, rs in rounds.items()}
    size = {name: results[0]["bytes"] / H5_COPIES for name, results in rounds.items()}
    ratio, sizes = seconds["store"] / seconds["npy"], size["store"] / size["npy"]
    return (
        f"## HDF5 slices -> store, {H5_COPIES} cases of 155 files (median of {ROUNDS})\n\n"
        "| | seconds | bytes per case |\n|---|---|---|\n"
        f"| kerasseg convert, {usable_cores()} processes | {seconds['store']:.2f} "
        f"| {size['store'] / 1e6:.1f} MB |\n"
        f"| h5py -> image.npy + mask.npy | {seconds['npy']:.2f} | {size['npy'] / 1e6:.1f} MB |\n\n"
        f"Time ratio {ratio:.2f} (at most {H5_RATIO} is asked for: {_verdict(ratio <= H5_RATIO)}); "
        f"size ratio {sizes:.3f} (at most {SIZE_RATIO}: {_verdict(sizes <= SIZE_RATIO)})."
    )


def _nifti_table(folder: Path) -> str:
    rates: dict[str, list[float]] = {"store": [], "gzip": [], "isal": []}
    for _ in range(ROUNDS):
        for name, results in rates.items():
            done = measure("benchmarks.conversion", name, str(folder), "brats_nifti", "nifti")
            results.append(NIFTI_COPIES / done["seconds"])
    rate = {name: statistics.median(results) for name, results in rates.items()}
    share = rate["store"] / rate["gzip"]
    return (
        f"## NIfTI -> store, {NIFTI_COPIES} cases on {usable_cores()} cores (median of {ROUNDS})"
        "\n\n| | cases per second |\n|---|---|\n"
        f"| kerasseg convert | {rate['store']:.2f} |\n"
        f"| only decompressing, Python's gzip (zlib), as nibabel does | {rate['gzip']:.2f} |\n"
        f"| only decompressing, isal, as kerasseg does | {rate['isal']:.2f} |\n\n"
        f"{share:.2f} of what zlib allows (at least {OF_GZIP} is asked for: "
        f"{_verdict(share >= OF_GZIP)}), {rate['store'] / rate['isal']:.2f} of what isal allows."
    )


def _memory_table(folder: Path) -> str:
    rows = []
    peaks = {}
    for name, cases in (("few", FEW), ("nifti", NIFTI_COPIES)):
        done = measure("benchmarks.conversion", "store", str(folder), "brats_nifti", name)
        peaks[cases] = done["parent_gib"] + done["worker_gib"]
        rows.append(f"| {cases} | {done['parent_gib']:.3f} | {done['worker_gib']:.3f} |")
    ratio = peaks[NIFTI_COPIES] / peaks[FEW]
    table = "\n".join(rows)
    return (
        "## Peak memory of a conversion\n\n| cases | parent, GiB | largest worker, GiB |\n"
        f"|---|---|---|\n{table}\n\nRatio of the sums {ratio:.2f}."
    )


def _verdict(good: bool) -> str:
    return "holds" if good else "FAILS"


def copy_h5(target: Path) -> None:
    """Copies of the 155 slices that differ in one pixel."""
    target.mkdir()
    for number in range(H5_COPIES):
        for path in (DATA / "brats20_h5").glob("*.h5"):
            index = path.stem.rpartition("_")[2]
            shutil.copyfile(path, target / f"volume_{number}_slice_{index}.h5")
        with h5py.File(target / f"volume_{number}_slice_70.h5", "r+") as file:
            file["image"][120, 120, 0] += number


def copy_nifti(target: Path, count: int) -> None:
    """Copies of the case whose T1 differs in one voxel; the other files are links."""
    (case,) = (DATA / "brats21").iterdir()
    t1 = gzip.decompress((case / f"{case.name}_t1.nii.gz").read_bytes())
    for number in range(count):
        folder = target / f"BraTS2021_{number:05d}"
        folder.mkdir(parents=True)
        for path in case.glob("*.nii.gz"):
            kind = path.name.rpartition("_")[2]
            name = folder / f"{folder.name}_{kind}"
            if kind == "t1.nii.gz":
                voxels = bytearray(t1)
                voxels[len(voxels) // 2 : len(voxels) // 2 + 2] = (number + 1).to_bytes(2, "little")
                name.write_bytes(gzip.compress(bytes(voxels), 6))
            else:
                shutil.copyfile(path, name)


def store(root: Path, layout: str) -> dict[str, float]:
    """kerasseg convert, start of its processes included."""
    from kerasseg.config.load import load_experiment
    from kerasseg.records.store import open_store

    target = root.parent / f"store-{os.getpid()}"
    wanted = [f"data.layout={layout}", f"data.root={root}", f"records.root={target}"]
    experiment = load_experiment(None, wanted)
    started = time.perf_counter()
    made = open_store(experiment)
    seconds = time.perf_counter() - started
    size = sum(made.manifest.shards.values())
    shutil.rmtree(target)
    return {"seconds": seconds, "bytes": size}


def npy(root: Path, _layout: str) -> dict[str, float]:
    """What most scripts do: read the slices of a volume, stack, save two arrays."""
    target = root.parent / f"npy-{os.getpid()}"
    target.mkdir()
    started = time.perf_counter()
    for number in range(H5_COPIES):
        images, masks = [], []
        for index in range(155):
            with h5py.File(root / f"volume_{number}_slice_{index}.h5") as file:
                images.append(file["image"][()])
                masks.append(file["mask"][()])
        image = np.stack(images).astype(np.float16)
        mask = (np.stack(masks) * np.array([1, 2, 3], np.uint8)).max(axis=-1)
        np.save(target / f"{number}_image.npy", image)
        np.save(target / f"{number}_mask.npy", mask)
    seconds = time.perf_counter() - started
    size = sum(path.stat().st_size for path in target.iterdir())
    shutil.rmtree(target)
    return {"seconds": seconds, "bytes": size}


def only_gzip(root: Path, _layout: str) -> dict[str, float]:
    """Python's gzip on every file, nothing else, in as many processes."""
    return _decompress(root, gunzip)


def only_isal(root: Path, _layout: str) -> dict[str, float]:
    """The same with isal."""
    return _decompress(root, igunzip)


def gunzip(path: Path) -> int:
    """Bytes of a decompressed file, by zlib."""
    return len(gzip.decompress(path.read_bytes()))


def igunzip(path: Path) -> int:
    """Bytes of a decompressed file, by isal."""
    from isal import igzip

    return len(igzip.decompress(path.read_bytes()))


def _decompress(root: Path, function: Callable[[Path], int]) -> dict[str, float]:
    files = sorted(root.glob("*/*.nii.gz"))
    started = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(usable_cores(), context) as pool:
        size = sum(pool.map(function, files))
    return {"seconds": time.perf_counter() - started, "bytes": size}


def main(what: str, folder: str, layout: str, name: str) -> None:
    """Print seconds, bytes and peak memory as JSON."""
    action = {"store": store, "npy": npy, "gzip": only_gzip, "isal": only_isal}[what]
    result = action(Path(folder) / name, layout)
    result["parent_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    result["worker_gib"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
