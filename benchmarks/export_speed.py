"""`python -m benchmarks export_speed`: a whole BraTS case through a SavedModel and through Python.

From raw intensities to the label, all cores, float32: signature `segment` of an exported run
against `kerasseg.load(RUN).predict` of the same array: the network and windows of the benchmark
sliding_window, with weights that nobody trained, and post-processing. Fresh processes take turns;
the one with the SavedModel cannot import kerasseg. What both find is compared, too. The case is
BraTS2021_00006 where it is there (../shared/data), else noise in a box of the size of its brain.
"""

import json
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.sliding_window import BOTTLENECK, BRAIN, CASE, FEATURES, OVERLAP, SHAPE, WINDOW
from benchmarks.subprocess_json import measure

ROUNDS = 3
NAMES = ("python", "saved_model")
SETTINGS = (
    "model.target=regions",
    f"model.features={list(FEATURES)}",
    f"model.bottleneck={BOTTLENECK}",
    f"pipeline.patch_size={list(WINDOW)}",
    f"evaluation.overlap={OVERLAP}",
    "postprocessing.keep_largest=[WT]",
    "postprocessing.fill_holes=[WT]",
    "postprocessing.minimum_volume={ET: 50}",
)


def run() -> str:
    """Markdown table of medians over `ROUNDS` rounds."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in NAMES}
    with tempfile.TemporaryDirectory() as folder:
        kind = measure("benchmarks.export_speed", "prepare", folder)["case"]
        for _ in range(ROUNDS):
            for name, measured in results.items():
                measured.append(measure("benchmarks.export_speed", name, folder))
        difference, labels, share = compare(Path(folder))
    rows = []
    for name, measured in results.items():
        pairs = list(zip(measured, results["python"], strict=True))
        ratios = [ours["seconds"] / theirs["seconds"] for ours, theirs in pairs]
        seconds = statistics.median(each["seconds"] for each in measured)
        work = [
            ours["processor"] / theirs["processor"]
            for ours, theirs in zip(measured, results["python"], strict=True)
        ]
        peak = max(each["peak_gib"] for each in measured)
        rows.append(
            f"| {name} | {seconds:.2f} s | {statistics.median(ratios):.3f} ({min(ratios):.3f} to "
            f"{max(ratios):.3f}) | {statistics.median(work):.3f} ({min(work):.3f} to "
            f"{max(work):.3f}) | {peak:.2f} GiB |"
        )
    return (
        f"## A whole case through a SavedModel, {kind} (median of {ROUNDS})\n\n"
        "| | time | time / Python's in the same round | processor time / Python's | peak memory "
        "|\n|---|---|---|---|---|\n"
        + "\n".join(rows)
        + f"\n\nLargest difference of a probability {difference:.1e}; {labels} labels of "
        f"{share:.1%} tumour differ."
    )


def compare(folder: Path) -> tuple[float, int, float]:
    """Largest difference of the probabilities, how many labels differ, share of tumour."""
    import numpy as np

    found, expected = (np.load(folder / f"{name}.npz") for name in ("saved_model", "python"))
    difference = np.abs(found["probabilities"] - expected["probabilities"]).max()
    differ = np.count_nonzero(found["labels"] != expected["labels"])
    return float(difference), int(differ), float(np.mean(expected["labels"] > 0))


def prepare(folder: Path) -> dict[str, str]:
    """Write the raw case (D, H, W, 4), a run, and what `kerasseg export` makes of it."""
    from kerasseg.start_tensorflow import start_tensorflow

    start_tensorflow()
    import keras
    import numpy as np

    from kerasseg.config_file import dump_experiment, load_experiment
    from kerasseg.datasets.discovery import discover
    from kerasseg.experiment import build_network
    from kerasseg.serving.export.export_runs import export_runs

    if CASE.is_dir():
        options = ["data.layout=brats_nifti", f"data.root={CASE}"]
        source = discover(load_experiment(None, options).data)[0]
        name, volume = source.case_id, source.load().image
    else:
        name, volume = "made up", np.zeros((*SHAPE, 4), np.float32)
        volume[BRAIN] = np.random.default_rng(0).normal(300, 100, size=volume[BRAIN].shape)
    np.save(folder / "case.npy", volume)
    experiment = load_experiment(None, SETTINGS)
    keras.utils.set_random_seed(0)
    network = build_network(experiment)
    (folder / "run" / "checkpoints").mkdir(parents=True)
    (folder / "run" / "config.yaml").write_text(dump_experiment(experiment), encoding="utf-8")
    network.save(folder / "run" / "checkpoints" / "best.keras")
    export_runs([folder / "run"], folder / "models" / "speed")
    return {"case": name}


def python_path(folder: Path) -> Any:
    """Volume -> label and probabilities, through `kerasseg.load`."""
    from kerasseg.start_tensorflow import start_tensorflow

    start_tensorflow()
    import kerasseg

    model = kerasseg.load(folder / "run")

    def segment(volume: Any) -> tuple[Any, Any]:
        found = model.predict(volume)
        return found.own_label({0: 0, 1: 1, 2: 2, 3: 3}), found.probabilities

    return segment


def saved_model(folder: Path) -> Any:
    """The same through the SavedModel, in a process without kerasseg."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "kerasseg"]:
        del sys.modules[name]
    sys.modules["kerasseg"] = None  # type: ignore[assignment]
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"  # as kerasseg and docker-compose.yml do
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder / "models" / "speed" / "1"))
    ask = loaded.signatures["segment"]

    def segment(volume: Any) -> tuple[Any, Any]:
        found = ask(volume=tf.constant(volume), spacing=tf.ones(3), probabilities=tf.constant(True))
        return found["labels"].numpy(), found["probabilities"].numpy()

    return segment


def main(name: str, folder: Path) -> None:
    """Print the seconds of one case and the peak memory of this process as JSON."""
    if name == "prepare":
        print(json.dumps(prepare(folder)))
        return
    segment = python_path(folder) if name == "python" else saved_model(folder)
    import numpy as np

    volume = np.load(folder / "case.npy")
    segment(np.random.default_rng(0).normal(300, 100, size=(8, 9, 10, 4)).astype(np.float32))
    started, processor = time.perf_counter(), time.process_time()
    labels, probabilities = segment(volume)
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    np.savez(folder / f"{name}.npz", labels=labels, probabilities=probabilities)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "processor": processor, "peak_gib": peak}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
