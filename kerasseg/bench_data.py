"""`kerasseg bench data`: how fast the input pipeline is, and what holds it up."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from kerasseg import anatomy
from kerasseg.config.augment import Flip, Spatial, Transform, transforms_of
from kerasseg.config.experiment import Experiment
from kerasseg.pipeline.batches import PatchReader, TrainingBatches, seeds_of
from kerasseg.pipeline.record_cache import MemoryCache, RecordCache, open_cache
from kerasseg.pipeline.sampling import check_store
from kerasseg.progress import track
from kerasseg.records.splits import open_split
from kerasseg.records.store import RecordStore, open_store
from kerasseg.tensorflow_setup import usable_cores
from kerasseg.training.fit import build_batches

_PATCHES = 24
"""Number of patches on which each stage is measured."""


@dataclass(frozen=True)
class DataSpeed:
    """Speed of the input pipeline.

    Attributes:
        patches_per_second: Patches per second of the whole pipeline on all cores.
        megabytes_read: Megabytes that are read from the store for each patch.
        megabytes_patch: Size of the image and the target of a patch.
        stages: Stage -> seconds of processor time for each patch, in the order of the stages.
    """

    patches_per_second: float
    megabytes_read: float
    megabytes_patch: float
    stages: dict[str, float]

    @property
    def slowest(self) -> str:
        """The stage that takes the most time."""
        return max(self.stages, key=lambda stage: self.stages[stage])


def bench_data(experiment: Experiment, seconds: float = 10.0) -> DataSpeed:
    """Measure the input pipeline and print its speed, the share of each stage, and what would help.

    The scans are converted first if that was not done yet. The whole pipeline runs for `seconds`.
    """
    store = open_store(experiment)
    split = open_split(store, experiment.split)
    check_store(experiment, store, split.train)
    cache = open_cache(experiment.pipeline, store, split.train)
    later = experiment.pipeline.augment_on == "device"
    batches, _ = build_batches(experiment, store, split, cache=cache, augment_later=later)
    rate = _measure_rate(batches, seconds)
    read = 0.0
    if not isinstance(cache, MemoryCache):
        sizes = [store.rows[case_id].payload_bytes for case_id in split.train]
        read = sum(sizes) / len(sizes) / experiment.pipeline.patches_per_volume / 1e6
    channels = 2 * experiment.input_channels + len(anatomy.TARGETS[experiment.model.target])
    patch = math.prod(experiment.pipeline.patch_size) * channels / 1e6
    stages = _measure_stages(experiment, store, split.train, cache)
    speed = DataSpeed(rate, read, patch, stages)
    _print_speed(experiment, speed)
    return speed


def _measure_rate(batches: TrainingBatches, seconds: float) -> float:
    """Return the patches per second of the whole pipeline.

    The first batches are not timed, because they only fill the queues.
    """
    iterator = iter(batches.dataset())
    for _ in range(batches.settings.patches_per_volume + batches.settings.prefetch):
        next(iterator)
    started, taken = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        next(iterator)
        taken += batches.batch_size
    return taken / (time.perf_counter() - started)


def _measure_stages(
    experiment: Experiment, store: RecordStore, case_ids: Any, cache: RecordCache
) -> dict[str, float]:
    """Return the processor seconds of each stage for each patch.

    Every measurement runs all stages up to one with the same random numbers. A stage takes what it
    adds to the stages before it.
    """
    settings, target = experiment.pipeline, experiment.model.target
    transforms = transforms_of(experiment.augment)
    placed = tuple(t for t in transforms if isinstance(t, Flip | Spatial))
    seed = tf.constant([experiment.run.seed, 0])
    per_volume = settings.patches_per_volume
    volumes = max(2, -(-_PATCHES // per_volume))

    def reader(chosen: tuple[Transform, ...], later: bool = False) -> PatchReader:
        return PatchReader(store, case_ids, settings, target, chosen, cache, later)

    slots = tf.data.Dataset.from_tensor_slices(
        (tf.range(volumes) % len(case_ids), seeds_of(seed, volumes), [per_volume] * volumes)
    )

    def drawn(chosen: tuple[Transform, ...], later: bool = False) -> tf.data.Dataset:
        return reader(chosen, later).patches(slots, volumes=1)

    later = settings.augment_on == "device"
    jobs: dict[str, Callable[[], tf.data.Dataset]] = {}
    if not isinstance(cache, MemoryCache):
        jobs["read"] = lambda: reader(()).serialized(slots)
    jobs["decode"] = lambda: reader(()).records(slots)
    jobs["cut"] = lambda: drawn(())
    if placed:
        jobs["flip and warp"] = lambda: drawn(placed)
    if len(placed) < len(transforms):
        jobs["augment"] = lambda: drawn(transforms, later)
    total = {}
    for name in track(list(jobs), len(jobs), "Measuring each stage"):
        times = []
        dataset = jobs[name]()
        for number in range(3):  # the first one compiles
            started = _processor_seconds()
            for _ in dataset:
                pass
            if number:
                times.append((_processor_seconds() - started) / (volumes * per_volume))
        total[name] = min(times)
    stages, before = {}, 0.0
    for name, seconds in total.items():
        stages[name] = max(seconds - before, 0.0)
        before = max(before, seconds)
    return stages


def _processor_seconds() -> float:
    times = psutil.Process().cpu_times()
    return float(times.user + times.system)


def _print_speed(experiment: Experiment, speed: DataSpeed) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    size = experiment.training.batch_size
    patch = " x ".join(map(str, experiment.pipeline.patch_size))
    rate, cores = speed.patches_per_second, usable_cores()
    read = rate * speed.megabytes_read
    reading = f"{read:.0f} MB/s read" if read else "nothing read (pipeline.cache=memory)"
    console.print(
        f"Patches    {rate:.1f} a second of {patch} voxels on {cores} cores: "
        f"{rate * speed.megabytes_patch:.0f} MB/s made, {reading}"
    )
    batch = "a batch" if size == 1 else f"a batch of {size}"
    console.print(f"Enough     for training steps of {size / rate:.2g} s or longer with {batch}")
    table = Table("stage", "ms a patch", "share", box=None)
    total = sum(speed.stages.values()) or 1.0
    for name, seconds in speed.stages.items():
        table.add_row(name, f"{1e3 * seconds:.1f}", f"{seconds / total:.0%}")
    console.print(table)
    console.print(f"Slowest    {speed.slowest}: {advice(experiment, speed.slowest)}")


def advice(experiment: Experiment, stage: str) -> str:
    """Return which settings to change if this stage is the slowest."""
    pipeline, augmentation = experiment.pipeline, experiment.augment
    if stage in ("read", "decode"):
        ways = [f"raise pipeline.patches_per_volume above {pipeline.patches_per_volume}"]
        if pipeline.cache == "none":
            ways.append("pipeline.cache=memory, if the cases fit")
            if experiment.records.compression != "none":
                ways.append("pipeline.cache=disk, as the store is compressed")
        return ", or ".join(ways)
    if stage == "cut":
        return "the least there is to do; smaller patches (pipeline.patch_size), or more cores"
    if stage == "flip and warp":
        return "lower p_rotation, p_scale or p_elastic of spatial, or elastic=0"
    ways = ["lower the p of blur, low_resolution, gamma and noise"]
    if augmentation.albumentations:
        ways.append("replace Albumentations by kerasseg's own transforms")
    if pipeline.augment_on == "host":
        ways.append("pipeline.augment_on=device, if that is a GPU")
    return ", or ".join(ways)
