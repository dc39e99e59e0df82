"""Albumentations in tf.data's threads: against one thread and processes, OpenCV's own on and off.

Mirroring, affine, elastic deformation and noise, each with p 1, on 240 x 240 slices of four
modalities (z-scores in a disc, air around it), as `kerasseg.slice_transforms` applies them. Every
row is a process of its own; rounds take turns, so that other work on the machine meets all alike.
The time of the CPU is that of all threads, and the one figure that other work hardly changes.
"""

import json
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np

from benchmarks.subprocess_json import measure
from kerasseg.slice_transforms import SliceTransforms, import_albumentations
from kerasseg.tensorflow_setup import usable_cores

SIZE, SLICES, WARM_UP, ROUNDS = 240, 150, 30, 5
TERMS = (
    {"HorizontalFlip": {"p": 1.0}},
    {"Affine": {"rotate": [-20, 20], "scale": [0.8, 1.2], "p": 1.0}},
    {"ElasticTransform": {"alpha": 40, "sigma": 8, "p": 1.0}},
    {"GaussNoise": {"p": 1.0}},
)
WAYS = {
    ("loop", "off"): "one thread",
    ("loop", "on"): "one thread, OpenCV's on",
    ("tf.data", "off"): "tf.data's threads",
    ("tf.data", "on"): "tf.data's threads, OpenCV's on",
    ("processes", "off"): "processes, one a core",
}


def run() -> str:
    """Markdown table: slices per second, its ratio to one thread, CPU time (medians)."""
    found: dict[tuple[str, str], list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way, rounds in found.items():
            rounds.append(measure("benchmarks.albumentations_threads", *way))

    def median(way: tuple[str, str], name: str) -> float:
        return statistics.median(one[name] for one in found[way])

    one = found["loop", "off"]
    rows = []
    for way, title in WAYS.items():
        ratios = [r["rate"] / o["rate"] for r, o in zip(found[way], one, strict=True)]
        rows.append(
            f"| {title} | {median(way, 'rate'):.0f} | {statistics.median(ratios):.2f} | "
            f"{1000 * median(way, 'cpu'):.1f} ms |"
        )
    return (
        f"## Albumentations on {SIZE}x{SIZE}x4 slices, {usable_cores()} cores (median of "
        f"{ROUNDS} x {SLICES})\n\n| | slices/s | to one thread | CPU a slice |\n|---|---|---|---|\n"
        + "\n".join(rows)
    )


def slice_of_brain() -> tuple[np.ndarray, np.ndarray]:
    """Image (240, 240, 4) and label (240, 240)."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    inside = rows**2 + columns**2 < (0.4 * SIZE) ** 2
    image = random.normal(size=(SIZE, SIZE, 4)).astype(np.float32) * inside[..., np.newaxis]
    return image, (random.integers(0, 4, (SIZE, SIZE)) * inside).astype(np.uint8)


def in_a_loop(seeds: range) -> Iterator[int]:
    """Slices one after the other; yields the number of each."""
    image, label = slice_of_brain()
    transforms = SliceTransforms(TERMS, 4)
    for seed in seeds:
        transforms(image, label, seed)
        yield seed


def in_tf_data(seeds: range) -> Iterator[int]:
    """As training makes them: `Dataset.map` with as many threads as it likes."""
    from kerasseg.tensorflow_setup import start_tensorflow

    start_tensorflow()
    import tensorflow as tf

    from kerasseg.config.augment import Albumentations
    from kerasseg.pipeline.augment.compose import apply_albumentations

    image, label = map(tf.constant, slice_of_brain())
    settings = Albumentations(terms=TERMS)
    slices = tf.data.Dataset.range(seeds.stop).map(
        lambda seed: apply_albumentations(
            settings, image, label, 4, tf.stack([tf.cast(seed, tf.int32), 0])
        ),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    for seed, _ in enumerate(slices):
        yield seed


def rate(way: str, threads: str) -> dict[str, float]:
    """Slices per second and CPU seconds per slice, after a warm-up."""
    import cv2

    import_albumentations()  # sets OpenCV's threads, once
    cv2.setNumThreads(0 if threads == "off" else usable_cores())
    source = (in_a_loop if way == "loop" else in_tf_data)(range(WARM_UP + SLICES))
    for _ in range(WARM_UP):
        next(source)
    started, worked = time.perf_counter(), time.process_time()
    done = sum(1 for _ in source)
    return {
        "rate": done / (time.perf_counter() - started),
        "cpu": (time.process_time() - worked) / done,
    }


def main(way: str, threads: str) -> None:
    """Print what `rate` found as JSON."""
    if way == "processes":
        cores = usable_cores()
        with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
            each = [pool.submit(rate, "loop", threads) for _ in range(cores)]
            found = [one.result() for one in each]
        cpu = statistics.mean(one["cpu"] for one in found)
        print(json.dumps({"rate": sum(one["rate"] for one in found), "cpu": cpu}))
    else:
        print(json.dumps(rate(way, threads)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
