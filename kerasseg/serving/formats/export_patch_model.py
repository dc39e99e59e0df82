"""`kerasseg export RUN --format …`: the network of a run for another runtime, checked."""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import keras

from kerasseg.errors import UserError
from kerasseg.inference.predictor import Predictor
from kerasseg.models.float32_twin import float32_twin
from kerasseg.prediction.model import load
from kerasseg.progress import track
from kerasseg.serving.export.export_runs import served_ids
from kerasseg.serving.formats.describe_patch_model import describe_patch_model
from kerasseg.serving.formats.largest_difference import checked_shapes, largest_difference
from kerasseg.serving.formats.new_files import new_files
from kerasseg.serving.formats.output_paths import output_paths
from kerasseg.serving.formats.refusals import Format, Precision, check_format
from kerasseg.serving.formats.run_cases import RunCases, open_run_cases
from kerasseg.serving.formats.runtime import Runtime
from kerasseg.serving.formats.runtime_network import runtime_network
from kerasseg.serving.formats.write_model import check_packages, write_model

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
