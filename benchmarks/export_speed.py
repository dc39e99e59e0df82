"""`python -m benchmarks export_speed`: a whole BraTS case through a SavedModel and through Python.

From raw intensities to the label, all cores, float32: signature `segment` of an exported run
against `kerasseg.load(RUN).predict` of the same array: the network and windows of the benchmark
sliding_window, and post-processing. The network is trained for a minute or two on patches of the
case itself: an untrained one paints noise over a third of the scan, whose post-processing takes
longer than that of any tumour. Fresh processes take turns, and so does the order of the two; the
one with the SavedModel cannot import kerasseg. Their results are compared, too. The case is
BraTS2021_00006 where it is there (../shared/data), else noise in a box of the size of its brain
with a brighter ball in it.

`python -m benchmarks.export_speed prepare FOLDER`, then `python FOLDER` or
`saved_model FOLDER`, measure one side.
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

ROUNDS = 5
STEPS, TRAINING_PATCH, TRAINING_BATCH = 150, 48, 2
"""Steps of the training, voxels of a patch along each axis, patches in a step."""
BALL = 25
"""Radius in voxels of the tumour in a case that is made up."""
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
SMALL_PATCH = f"pipeline.patch_size={[TRAINING_PATCH] * 3}"


def run() -> str:
    """Return a Markdown table of medians over `ROUNDS` rounds."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in NAMES}
    with tempfile.TemporaryDirectory() as folder:
        kind = measure("benchmarks.export_speed", "prepare", folder)["case"]
        for index in range(ROUNDS):
            for name in NAMES[:: -1 if index % 2 else 1]:
                results[name].append(measure("benchmarks.export_speed", name, folder))
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
    """Return the largest difference of a probability, how many labels differ, share of tumour."""
    import numpy as np

    found, expected = (np.load(folder / f"{name}.npz") for name in ("saved_model", "python"))
    difference = np.abs(found["probabilities"] - expected["probabilities"]).max()
    differ = np.count_nonzero(found["labels"] != expected["labels"])
    return float(difference), int(differ), float(np.mean(expected["labels"] > 0))


def prepare(folder: Path) -> dict[str, str]:
    """Write the raw case (D, H, W, 4), a run, and its export; return the name of the case."""
    from kerasseg.tensorflow_setup import start_tensorflow

    start_tensorflow()
    import keras
    import numpy as np

    from kerasseg import anatomy
    from kerasseg.config.load import dump_experiment, load_experiment
    from kerasseg.datasets.discovery import discover
    from kerasseg.run_experiment import build_network
    from kerasseg.serving.export import export_runs

    if CASE.is_dir():
        options = ["data.layout=brats_nifti", f"data.root={CASE}"]
        source = discover(load_experiment(None, options).data)[0]
        case = source.load()
        name, volume, label = source.case_id, case.image, case.label
        if label is None:
            sys.exit(f"{name} in {CASE} has no segmentation to train on.")
    else:
        name, volume = "made up", np.zeros((*SHAPE, 4), np.float32)
        volume[BRAIN] = np.random.default_rng(0).normal(300, 100, size=volume[BRAIN].shape)
        centre = [(part.start + part.stop) / 2 for part in BRAIN]
        away = np.moveaxis(np.indices(SHAPE), 0, -1) - centre
        label = np.where(np.linalg.norm(away, axis=-1) < BALL, anatomy.ET, 0).astype(np.uint8)
        volume[label > 0] += 200
    np.save(folder / "case.npy", volume)
    experiment = load_experiment(None, SETTINGS)
    keras.utils.set_random_seed(0)
    network = build_network(experiment)
    trained = build_network(load_experiment(None, [*SETTINGS, SMALL_PATCH]))
    train(trained, volume, label)
    network.set_weights(trained.get_weights())
    (folder / "run" / "checkpoints").mkdir(parents=True)
    (folder / "run" / "config.yaml").write_text(dump_experiment(experiment), encoding="utf-8")
    network.save(folder / "run" / "checkpoints" / "best.keras")
    export_runs([folder / "run"], folder / "models" / "speed")
    return {"case": name}


def train(network: Any, volume: Any, label: Any) -> None:
    """Fit `network` to patches of one raw case (D, H, W, C) and its label, half around tumour."""
    import keras
    import numpy as np

    from kerasseg.records.normalise import z_score
    from kerasseg.targets import label_to_masks

    image = z_score(volume)[0]
    masks = label_to_masks(label, "regions").astype(np.float32)
    places = [np.argwhere(label > 0), np.argwhere(image.any(axis=-1))]
    random = np.random.default_rng(0)
    last = np.subtract(label.shape, TRAINING_PATCH)

    def patch(kind: int) -> tuple[Any, Any]:
        centre = places[kind][random.integers(len(places[kind]))]
        d, h, w = np.clip(centre - TRAINING_PATCH // 2, 0, last)
        part = tuple(slice(first, first + TRAINING_PATCH) for first in (d, h, w))
        return image[part], masks[part]

    def loss(truth: Any, found: Any) -> Any:
        shared = keras.ops.sum(truth * found, axis=(0, 1, 2, 3))
        both = keras.ops.sum(truth + found, axis=(0, 1, 2, 3))
        dice = 1 - keras.ops.mean((2 * shared + 1) / (both + 1))
        return dice + keras.ops.mean(keras.losses.binary_crossentropy(truth, found))

    network.compile(keras.optimizers.Adam(3e-3), loss, jit_compile=False)
    for step in range(STEPS):
        images, truths = zip(*(patch(index % 2) for index in range(TRAINING_BATCH)), strict=True)
        value = network.train_on_batch(np.stack(images), np.stack(truths))
        if step % 25 == 0 or step == STEPS - 1:
            print(f"step {step + 1} of {STEPS}: loss {float(value):.3f}", file=sys.stderr)


def python_path(folder: Path) -> Any:
    """Return a function from a volume to its label and probabilities, through `kerasseg.load`."""
    from kerasseg.tensorflow_setup import start_tensorflow

    start_tensorflow()
    import kerasseg

    model = kerasseg.load(folder / "run")

    def segment(volume: Any) -> tuple[Any, Any]:
        found = model.predict(volume)
        return found.own_label({0: 0, 1: 1, 2: 2, 3: 3}), found.probabilities

    return segment


def saved_model(folder: Path) -> Any:
    """Return the same function through the SavedModel, in a process without kerasseg."""
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
