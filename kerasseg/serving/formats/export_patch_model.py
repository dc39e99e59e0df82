"""`kerasseg export RUN --format …`: the network of a run for another runtime, checked.

NAME.json: what whoever runs a patch model has to know.

How far a written model is from the network it was made of.

Where a patch model and its JSON are written.

The cases of a run's own store: to choose ranges on, and to measure Dice on.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata as packages
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np

from kerasseg import __version__, anatomy
from kerasseg.errors import UserError
from kerasseg.evaluation.evaluate import dice_of_cases
from kerasseg.evaluation.scores import mean_scores
from kerasseg.inference.predictor import Predictor
from kerasseg.models.build import float32_twin
from kerasseg.pipeline.batches import validation_batches
from kerasseg.prediction.model import LoadedRun, load
from kerasseg.progress import track
from kerasseg.records.store import RecordStore
from kerasseg.run import Run, read_run
from kerasseg.serving.export import served_ids
from kerasseg.serving.export_contents import label_names
from kerasseg.serving.formats.runtimes import (
    Format,
    Precision,
    Runtime,
    check_format,
    check_packages,
    new_files,
    runtime_network,
    write_model,
)

NORMALISATION = (
    "Each modality by itself: subtract the mean and divide by the standard deviation of the scan's "
    "voxels that are not 0; voxels that are 0 (air) stay 0. Over the whole scan, before patches "
    "are cut."
)


def describe_patch_model(
    run: LoadedRun, runtime: Runtime, ids: Mapping[int, int]
) -> dict[str, Any]:
    """Name -> what JSON can hold; the names are those of `docs/serving.md`."""
    data, pipeline = run.experiment.data, run.experiment.pipeline
    target, flat = run.target, run.predictor.slice_axis is not None
    channels = "the modalities in order"
    slices = None
    if flat:
        slices = {"axis": pipeline.slices.axis, "neighbours": pipeline.slices.neighbours}
    if slices and slices["neighbours"]:
        channels = (
            f"the slice with its {slices['neighbours']} neighbours on both sides, from the lowest "
            "index on: all modalities in order of the first, then of the next; 0 outside the scan"
        )
    sizes = runtime.shape[1:-1]
    return {
        "modalities": list(data.modalities),
        "channels": channels,
        "normalisation": NORMALISATION,
        "dimensions": 2 if flat else 3,
        "axes": ["superior", "posterior", "left"],
        "slices": slices,
        "spacing": list(data.spacing) if data.spacing else None,
        "size": list(data.size) if data.size else None,
        "target": target,
        "activation": f"{anatomy.ACTIVATIONS[target]}, in the model",
        "regions": list(anatomy.TARGETS[target]),
        "labels": label_names(target, ids),
        "patch_size": list(pipeline.patch_size),
        "input": {"name": runtime.input, "shape": list(runtime.shape), "dtype": "float32"},
        "output": {"name": runtime.output, "dtype": "float32"},
        "dynamic_batch": runtime.shape[0] is None,
        "dynamic_size": all(size is None for size in sizes),
        "runtime": runtime.name,
        "advice": runtime.advice,
        "versions": {
            "kerasseg": __version__,
            **{name: packages.version(name) for name in ("tensorflow", "keras")},
        },
        "exported": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "run": run.folder.name,
    }


Shape = tuple[int, ...]


def checked_shapes(patch: Sequence[int], channels: int, *, any_size: bool) -> list[Shape]:
    """A batch of one and of two patches, and of one twice as long where any size is taken."""
    shapes = [(1, *patch, channels), (2, *patch, channels)]
    return [*shapes, (1, 2 * patch[0], *patch[1:], channels)] if any_size else shapes


def largest_difference(network: keras.Model, runtime: Runtime, shapes: Sequence[Shape]) -> float:
    """The largest difference of a probability, over random patches of those shapes.

    The patches are normal noise, as z-scored scans are about that large. Infinite where a value is
    not finite or the shapes of the probabilities differ.
    """
    random = np.random.default_rng(0)
    worst = 0.0
    for shape in shapes:
        patches = random.standard_normal(shape, np.float32)
        expected = keras.ops.convert_to_numpy(network(patches, training=False))
        found = runtime.predict(patches)
        if found.shape != expected.shape or not np.isfinite(found).all():
            return float("inf")
        worst = max(worst, float(np.abs(found - expected).max()))
    return worst


_SUFFIXES: Final = {"onnx": ".onnx", "litert": ".tflite", "openvino": ""}


def output_paths(output: Path, wanted: Format) -> list[Path]:
    """The model, of OpenVINO a folder, and NAME.json beside it.

    Raises `UserError` for a name that does not fit the format.
    """
    suffix = _SUFFIXES[wanted]
    if output.suffix != suffix or not output.name:
        shape = f"models/NAME{suffix}" if suffix else "a folder models/NAME, without a dot"
        raise UserError(f"--output {output}: --format {wanted} is written to {shape}.")
    for path in output.parents:
        if path.exists() and not path.is_dir():
            raise UserError(f"--output {output}: {path} is a file; name another place.")
    return [output, output.with_suffix(".json")]


_CALIBRATION_CASES = 16
"""Of the training side, `pipeline.validation_patches_per_volume` patches of each."""


@dataclass(frozen=True)
class RunCases:
    """A finished run and its open store."""

    run: Run
    store: RecordStore

    def calibration(self) -> list[np.ndarray]:
        """Patches (1, …, C) float32 of cases of the training side, the same each time.

        Raises `UserError` where that side is empty.
        """
        experiment = self.run.experiment
        ids = self._readable("train")
        step = max(1, len(ids) // _CALIBRATION_CASES)
        batches = validation_batches(
            self.store,
            ids[::step][:_CALIBRATION_CASES],
            experiment.pipeline,
            target=experiment.model.target,
            batch_size=1,
            seed=experiment.run.seed,
        )
        return [image.numpy().astype(np.float32) for image, *_ in batches]

    def mean_dice(self, predictor: Predictor) -> tuple[float, int]:
        """Mean Dice of the validation cases over all regions, and how many cases there are."""
        ids = self._readable("validation")
        means = mean_scores(dice_of_cases(predictor, self.store, ids))
        return means.get("mean", next(iter(means.values()))), len(ids)

    def _readable(self, split: str) -> list[str]:
        ids = self.run.case_ids(split)
        if self.run.experiment.records.on_damaged_record == "stop":
            return ids
        damaged = self.store.damaged_records(ids)
        return [case_id for case_id in ids if case_id not in damaged]


def open_run_cases(folder: Path) -> RunCases:
    """Open the store of the run in `folder`, but convert nothing.

    Raises `UserError` for a run that is not finished, and where its store is not there.
    """
    run = read_run(folder)
    return RunCases(run, run.open_store())


LARGEST: Final[dict[Precision, float]] = {"float32": 1e-3, "float16": 5e-2}
"""How far a probability may be from that of the network. int8 is judged by its Dice alone."""
DICE_TOLERANCE: Final = 0.01


@dataclass(frozen=True)
class PatchModelWanted:
    """What is to be written.

    precision: float16 is of the weights, in ONNX of the computation, too; int8 of convolutions
    labels:    convention of the ids, or None for the data set's own
    tolerance: mean Dice of the validation cases that float16 and int8 may lose
    """

    format: Format
    precision: Precision = "float32"
    labels: str | None = None
    tolerance: float = DICE_TOLERANCE


def export_patch_model(
    runs: Sequence[Path], output: Path, wanted: PatchModelWanted
) -> tuple[list[Path], dict[str, Any]]:
    """Write the network of one run and its JSON; returns their paths and what the JSON says.

    Raises `UserError`, and leaves no file, for what the format cannot hold and for a model that is
    too far from the network: by a probability (`LARGEST`), or by its Dice.
    """
    if len(runs) > 1:
        raise UserError(
            f"--format {wanted.format} takes one run, and {len(runs)} were named: it holds the "
            "network of patches alone, and the mean of several is the work of a SavedModel: export "
            "them one by one, or without --format."
        )
    places = output_paths(output, wanted.format)
    check_packages(wanted.format)
    model = load(runs[0])
    (run,) = model.runs
    network = float32_twin(run.predictor.network)
    check_format(network, wanted.format, wanted.precision)
    ids = served_ids(model, wanted.labels)
    cases, unmeasured = _cases(runs[0], wanted)
    with new_files(places) as (path, sheet):
        with contextlib.closing(track(["write", "check"], 2, f"export to {wanted.format}")) as step:
            next(step)
            calibration = cases.calibration() if cases and wanted.precision == "int8" else ()
            runtime = write_model(network, path, wanted.format, wanted.precision, calibration)
            next(step)
            told: dict[str, Any] = {"format": wanted.format, "precision": wanted.precision}
            told |= describe_patch_model(run, runtime, ids)
            told["check"] = _check(network, runtime, run.predictor, wanted)
            next(step, None)
        told["dice"] = unmeasured
        if cases:
            told["dice"] = _measure(cases, run.predictor, network, runtime, wanted)
        sheet.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return places, told


def _cases(folder: Path, wanted: PatchModelWanted) -> tuple[RunCases | None, str]:
    """The run's cases where its Dice is to be measured, else the reason why it is not."""
    if wanted.precision == "float32":
        return None, "not measured: float32 is held to the network's probabilities"
    try:
        return open_run_cases(folder), ""
    except UserError as error:
        if wanted.precision == "float16":
            return None, f"not measured: {error}"
        raise UserError(
            "--precision int8 needs the run's own cases, those of its training side to find the "
            f"range of every activation, and those of validation to measure its Dice: {error}"
        ) from error


def _check(
    network: keras.Model, runtime: Runtime, predictor: Predictor, wanted: PatchModelWanted
) -> dict[str, Any]:
    any_size = all(size is None for size in runtime.shape[1:-1])
    patch = predictor.pipeline.patch_size
    shapes = checked_shapes(patch, network.inputs[0].shape[-1], any_size=any_size)
    found, allowed = largest_difference(network, runtime, shapes), LARGEST.get(wanted.precision)
    if allowed is not None and not found <= allowed:
        raise UserError(
            f"The {wanted.format} model in {wanted.precision} is not the network: a probability "
            f"differs by {found:.2g}, and {allowed:g} is allowed. Nothing was written; take "
            + ("--precision float32." if wanted.precision != "float32" else "another --format.")
        )
    return {
        "patches": [list(shape) for shape in shapes],
        "largest_difference": found,
        "allowed": allowed,
    }


def _measure(
    cases: RunCases,
    predictor: Predictor,
    network: keras.Model,
    runtime: Runtime,
    wanted: PatchModelWanted,
) -> dict[str, Any]:
    """Mean Dice through the same sliding window, of the network and of the written model."""
    exported = Predictor(
        runtime_network(runtime, network),
        predictor.pipeline,
        predictor.settings,
        target=predictor.target,
        postprocessing=predictor.postprocessing,
    )
    before, count = cases.mean_dice(predictor)
    after, _ = cases.mean_dice(exported)
    if not before - after <= wanted.tolerance:
        raise UserError(
            f"The {wanted.format} model in {wanted.precision} has a mean Dice of {after:.4f} on "
            f"the {count} validation cases, the network {before:.4f}: it loses more than "
            f"--tolerance {wanted.tolerance:g}. Nothing was written; take another --precision."
        )
    return {
        "cases": count,
        "network": before,
        "exported": after,
        "tolerance": wanted.tolerance,
    }
