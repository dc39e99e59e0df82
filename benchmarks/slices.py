"""Slices out of the store of volumes against a store of slices, by turns in one run.

The case of `../shared/data/brats21` (or a phantom of its size). The store of slices is what 2-D
scripts write: each 240 x 240 x 4 slice with brain a TFRecord of its own, float16, with its label;
shuffled, decoded and batched by tf.data. Both give batches of 16 in random order, from the page
cache.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

from benchmarks import data_speed
from benchmarks.subprocess_json import measure
from kerasseg.tensorflow_setup import start_tensorflow

ROUNDS, SECONDS, BATCH = 3, 8.0, 16
FORMS = {
    "store of volumes, 16 slices a volume": 16,
    "store of volumes, 64 slices a volume": 64,
    "store of slices": 0,
}


def run() -> str:
    """Markdown table of slices a second, processor time and bytes a slice."""
    with tempfile.TemporaryDirectory(prefix="kerasseg-bench-") as folder:
        measure("benchmarks.slices", "-1", folder)
        found: dict[str, list[dict[str, float]]] = {name: [] for name in FORMS}
        for _ in range(ROUNDS):
            for name, per_volume in FORMS.items():
                found[name].append(measure("benchmarks.slices", str(per_volume), folder))
    rows = "\n".join(
        f"| {name} | {statistics.median(r['rate'] for r in rounds):.0f} | "
        f"{statistics.median(r['milliseconds'] for r in rounds):.2f} ms | "
        f"{rounds[0]['bytes'] / 1e3:.0f} kB |"
        for name, rounds in found.items()
    )
    return (
        f"## Slices of 240 x 240 x 4 (median of {ROUNDS} rounds)\n\n"
        "| | slices/s, two cores | processor time a slice | on the disk a slice |\n"
        f"|---|---|---|---|\n{rows}"
    )


def of_volumes(folder: Path, per_volume: int) -> tuple[Iterator[int], float]:
    """Our batches, and bytes of the store for each slice with brain."""
    from kerasseg.pipeline.batches import TrainingBatches
    from kerasseg.records.store import open_store

    wanted = data_speed.experiment(
        folder,
        "model.dimensions=2",
        "pipeline.patch_size=[240,240]",
        f"pipeline.patches_per_volume={per_volume}",
    )
    store = open_store(wanted)
    (row,) = store.rows.values()
    cases = list(store.rows) * BATCH
    target = wanted.model.target
    batches = TrainingBatches(
        store, cases, wanted.pipeline, target=target, batch_size=BATCH, seed=0
    )
    return (int(image.shape[0]) for image, _ in batches.dataset()), row.payload_bytes / row.shape[0]


def of_slices(folder: Path) -> tuple[Iterator[int], float]:
    """The plain pipeline over slices."""
    import tensorflow as tf

    path = folder / "slices.tfrecord"
    count = sum(1 for _ in tf.data.TFRecordDataset(str(path)))
    features = {key: tf.io.FixedLenFeature([], tf.string) for key in ("image", "label")}

    def parse(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parts = tf.io.parse_single_example(serialized, features)
        image = tf.reshape(tf.io.decode_raw(parts["image"], tf.float16), [240, 240, 4])
        label = tf.reshape(tf.io.decode_raw(parts["label"], tf.uint8), [240, 240, 1])
        return image, tf.cast(label == tf.constant([1, 2, 3], tf.uint8), tf.uint8)

    data = tf.data.TFRecordDataset(str(path)).repeat().shuffle(count, seed=0)
    data = data.map(parse, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH, drop_remainder=True)
    return (int(image.shape[0]) for image, _ in data.prefetch(2)), path.stat().st_size / count


def prepare(folder: Path) -> None:
    """Write both stores."""
    import tensorflow as tf

    data_speed.prepare(folder)
    image = np.load(folder / "image.npy").transpose(1, 2, 3, 0).astype(np.float16)
    label = np.load(folder / "label.npy")
    with tf.io.TFRecordWriter(str(folder / "slices.tfrecord")) as writer:
        for pixels, ids in zip(image, label, strict=True):
            if pixels.any():
                values = {"image": pixels.tobytes(), "label": ids.tobytes()}
                feature = {
                    key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
                    for key, value in values.items()
                }
                example = tf.train.Example(features=tf.train.Features(feature=feature))
                writer.write(example.SerializeToString())


def main(per_volume: str, place: str) -> None:
    """Print slices a second, milliseconds of the processor and bytes a slice as JSON."""
    start_tensorflow()
    folder, number = Path(place), int(per_volume)
    if number < 0:
        prepare(folder)
        print("{}")
        return
    source, size = of_volumes(folder, number) if number else of_slices(folder)
    for _ in range(20):
        next(source)
    process = psutil.Process()
    started, before, taken = time.perf_counter(), sum(process.cpu_times()[:2]), 0
    while time.perf_counter() - started < SECONDS:
        taken += next(source)
    seconds = time.perf_counter() - started
    spent = sum(process.cpu_times()[:2]) - before
    result = {"rate": taken / seconds, "milliseconds": 1e3 * spent / taken, "bytes": size}
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
