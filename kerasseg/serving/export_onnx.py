"""`kerasseg export RUN --format onnx`: the network of one run as an ONNX file, compared with Keras.

The file holds the network alone, from normalised patches to probabilities. NAME.json beside it says
what a program needs to know to use it. Neither is written if the file, run by onnxruntime, is too
far from the Keras network.
"""

import contextlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from importlib import metadata as packages
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

import keras
import numpy as np
import tensorflow as tf
import yaml

from kerasseg import __version__, anatomy
from kerasseg.errors import UserError
from kerasseg.evaluation.evaluate import dice_of_cases
from kerasseg.evaluation.scores import mean_scores
from kerasseg.files import atomic_write, make_folder
from kerasseg.inference.postprocessing import channel_thresholds
from kerasseg.inference.predictor import Predictor
from kerasseg.models.build import float32_twin
from kerasseg.pipeline.batches import validation_batches
from kerasseg.prediction.model import LoadedRun, load
from kerasseg.progress import track
from kerasseg.records.store import RecordStore
from kerasseg.run import Run, read_run
from kerasseg.serving.export import label_names, served_ids
from kerasseg.serving.onnx_check import (
    INPUT,
    OUTPUT,
    OnnxNetwork,
    check_patches,
    exact_twin,
    largest_difference,
)
from kerasseg.serving.protocol import onnx_files
from kerasseg.targets import WRITES

Precision = Literal["float32", "float16", "int8"]

DICE_TOLERANCE: Final = 0.01
LARGEST_DIFFERENCE: Final[dict[Precision, float]] = {"float32": 1e-3, "float16": 5e-2}
"""How far a probability may be from that of the network with exact means. int8 is judged by its
Dice alone."""
_CALIBRATION_CASES = 16
"""Training cases, `pipeline.validation_patches_per_volume` patches of each."""
_NOTES: Final = Path(__file__).parents[1] / "templates" / "onnx_notes.yaml"
"""The texts of NAME.json."""


def export_onnx(
    runs: Sequence[Path],
    output: Path,
    precision: Precision = "float32",
    labels: str | None = None,
    tolerance: float = DICE_TOLERANCE,
) -> tuple[list[Path], dict[str, Any]]:
    """Write the network of one run to `output` (NAME.onnx), and NAME.json beside it.

    Returns the paths of both files, and what the JSON says. Raises `UserError` for several runs, a
    name that does not fit, a missing package, a run without the cases that int8 needs, and a model
    that is too far from the network, by a probability (`LARGEST_DIFFERENCE`) or by its Dice. No
    file is left then.

    Args:
        runs: The run's folder.
        output: The file to write.
        precision: float32; float16 for weights and computation; int8 for convolutions.
        labels: Convention of the label ids in NAME.json, or None for the data set's own.
        tolerance: Mean Dice of the validation cases that float16 and int8 may lose.
    """
    if len(runs) > 1:
        raise UserError(
            f"--format onnx takes one run, and {len(runs)} were named: the file holds the network "
            "of patches alone, and combining several is the work of a SavedModel: export them one "
            "by one, or without --format."
        )
    places = onnx_files(output)
    _check_packages()
    model = load(runs[0])
    (run,) = model.runs
    network = float32_twin(run.predictor.network)
    ids = served_ids(model, labels)
    cases, unmeasured = _cases_of(runs[0], precision)
    make_folder(places[0].parent, "--output")
    with atomic_write(places[0], "--output") as path, atomic_write(places[1], "--output") as sheet:
        with contextlib.closing(track(["write", "check"], 2, "export to onnx")) as step:
            next(step)
            calibration = cases.calibration() if cases and precision == "int8" else ()
            write_onnx(network, path, precision, calibration)
            exported = OnnxNetwork(path)
            next(step)
            contents: dict[str, Any] = {"format": "onnx", "precision": precision}
            contents |= _describe(run, exported, ids)
            contents["check"] = _check(network, exported, run.predictor, precision)
            next(step, None)
        contents["dice"] = unmeasured
        if cases:
            contents["dice"] = _compare_dice(
                cases, run.predictor, network, exported, precision, tolerance
            )
        sheet.write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")
    return places, contents


def write_onnx(
    network: keras.Model, path: Path, precision: Precision, calibration: Sequence[np.ndarray] = ()
) -> None:
    """Write a network as an ONNX file that takes `patches` and returns `probabilities`.

    Raises `UserError` if the installed onnxruntime has no converter to float16.

    Args:
        network: A float32 network.
        path: The file to write.
        precision: float16 and int8 keep a float32 input and output.
        calibration: Patches (1, …, C), which int8 needs: it finds the range of each activation on
            them, and writes it into the file as QuantizeLinear and DequantizeLinear.
    """
    import onnx

    _teach_erfc()
    signature = [tf.TensorSpec(network.inputs[0].shape, tf.float32, name=INPUT)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Keras's patch of tf2onnx raises it
        network.export(str(path), format="onnx", input_signature=signature, verbose=False)
    model = onnx.load(path)
    # tf2onnx calls the output Identity:0.
    (found,) = model.graph.output
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [OUTPUT if name == found.name else name for name in names]
    found.name = OUTPUT
    _split_means(model)
    if precision == "float16":
        model = _to_float16(model)
    onnx.save(model, path)
    if precision == "int8":
        _to_int8(path, calibration)


@cache
def _teach_erfc() -> None:
    """Have tf2onnx write erfc, of which TensorFlow makes the activation gelu, as 1 - erf."""
    from tf2onnx.handler import tf_op

    @tf_op("Erfc")
    class Erfc:
        @classmethod
        def version_9(cls, graph: Any, node: Any, **_: Any) -> None:
            (output,), node.type = node.output, "Erf"
            one = graph.make_const(f"{node.name}/one", np.array(1, np.float32))
            graph.insert_new_node_on_output("Sub", output, inputs=[one.output[0], output])


def _split_means(model: Any) -> None:
    """Let each mean over several axes be one of means over single axes.

    The float32 sum over all voxels of a patch that is mostly air loses digits, and the mean is
    divided by a small deviation afterwards: probabilities were off by 0.01.
    """
    from onnx import helper, numpy_helper

    factors = ("twice", "half")
    for name, value in zip(factors, (2, 0.5), strict=True):
        constant = numpy_helper.from_array(np.float32(value), name)
        model.graph.initializer.append(constant)
    nodes = []
    for node in model.graph.node:
        attributes = {each.name: each for each in node.attribute}
        axes = sorted(attributes["axes"].ints) if "axes" in attributes else []
        kept = "keepdims" not in attributes or attributes["keepdims"].i
        if node.op_type != "ReduceMean" or len(axes) < 2 or not kept:
            nodes.append(node)
            continue
        (source,), (result,) = node.input, node.output
        for index, axis in enumerate(axes):
            # Between two means stands a factor, which is exact, and undone by the next: OpenVINO
            # would make a single mean of them again.
            names = [f"{result}/{part}{index}" for part in ("mean", "times")]
            if index == len(axes) - 1:
                names[index % 2 :] = [result] * (2 - index % 2)
            nodes.append(helper.make_node("ReduceMean", [source], [names[0]], axes=[axis]))
            if names[0] != result:
                nodes.append(helper.make_node("Mul", [names[0], factors[index % 2]], [names[1]]))
            source = names[1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _to_float16(model: Any) -> Any:
    try:
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ImportError as error:
        raise UserError(
            f"--precision float16 cannot be written: this onnxruntime lacks {error.name}: "
            "pip install -U onnxruntime, or take --precision float32."
        ) from error
    return convert_float_to_float16(model, keep_io_types=True)


def _to_int8(path: Path, calibration: Sequence[np.ndarray]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Patches(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(calibration)

        def get_next(self) -> dict[str, Any] | None:
            patch = next(self.left, None)
            return None if patch is None else {INPUT: patch}

    with TemporaryDirectory(dir=path.parent) as folder:
        whole = path.rename(Path(folder, path.name))
        quantize_static(
            str(whole),
            str(path),
            Patches(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            # Only convolutions. The sums of a normalisation over a whole patch stay in float32: in
            # int8 they spoil every probability.
            op_types_to_quantize=["Conv", "ConvTranspose"],
        )


def _check(
    network: keras.Model, exported: OnnxNetwork, predictor: Predictor, precision: Precision
) -> dict[str, Any]:
    patches = check_patches(
        tuple(predictor.pipeline.patch_size), network.inputs[0].shape[-1], exported.any_size
    )
    found = largest_difference(exact_twin(network), exported, patches)
    allowed = LARGEST_DIFFERENCE.get(precision)
    if allowed is not None and not found <= allowed:
        raise UserError(
            f"The ONNX model in {precision} differs from the network by {found:.2g} in a "
            f"probability, and {allowed:g} is allowed. Nothing was written; "
            + ("take --precision float32." if precision != "float32" else "export a SavedModel.")
        )
    return {
        "patches": [list(patch.shape) for patch in patches],
        "largest_difference": found,
        "allowed": allowed,
        "largest_difference_from_keras": largest_difference(network, exported, patches),
    }


@dataclass(frozen=True)
class _RunCases:
    """A finished run and its open store."""

    run: Run
    store: RecordStore

    def calibration(self) -> list[np.ndarray]:
        """Return patches (1, …, C) float32 of training cases, the same each time.

        Raises `UserError` if the run has no training cases.
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
        """Return the mean Dice of the validation cases over all regions, and how many they are."""
        ids = self._readable("validation")
        means = mean_scores(dice_of_cases(predictor, self.store, ids))
        return means.get("mean", next(iter(means.values()))), len(ids)

    def _readable(self, split: str) -> list[str]:
        ids = self.run.case_ids(split)
        if self.run.experiment.records.on_damaged_record == "stop":
            return ids
        damaged = self.store.damaged_records(ids)
        return [case_id for case_id in ids if case_id not in damaged]


def _cases_of(folder: Path, precision: Precision) -> tuple[_RunCases | None, str]:
    """Return the run's cases if its Dice is to be measured, else None and the reason why not."""
    if precision == "float32":
        return None, "not measured: float32 is checked by its probabilities"
    try:
        run = read_run(folder)
        return _RunCases(run, run.open_store()), ""
    except UserError as error:
        if precision == "float16":
            return None, f"not measured: {error}"
        raise UserError(
            "--precision int8 needs the run's own cases, those of its training side to find the "
            f"range of every activation, and those of validation to measure its Dice: {error}"
        ) from error


def _compare_dice(
    cases: _RunCases,
    predictor: Predictor,
    network: keras.Model,
    exported: OnnxNetwork,
    precision: Precision,
    tolerance: float,
) -> dict[str, Any]:
    """Measure the mean Dice of network and exported model through the same sliding window."""
    in_onnx = Predictor(
        exported.as_keras(network),
        predictor.pipeline,
        predictor.settings,
        target=predictor.target,
        postprocessing=predictor.postprocessing,
        skull_stripped=predictor.skull_stripped,
    )
    before, count = cases.mean_dice(predictor)
    after, _ = cases.mean_dice(in_onnx)
    if not before - after <= tolerance:
        raise UserError(
            f"The ONNX model in {precision} has a mean Dice of {after:.4f} on the {count} "
            f"validation cases, the network {before:.4f}: it loses more than --tolerance "
            f"{tolerance:g}. Nothing was written; take another --precision."
        )
    return {"cases": count, "network": before, "exported": after, "tolerance": tolerance}


def _describe(run: LoadedRun, exported: OnnxNetwork, ids: Mapping[int, int]) -> dict[str, Any]:
    """Return the contents of NAME.json; docs/onnx.md explains the names."""
    data, pipeline = run.experiment.data, run.experiment.pipeline
    notes = yaml.safe_load(_NOTES.read_text(encoding="utf-8"))
    flat = run.predictor.slice_axis is not None
    neighbours = pipeline.slices.neighbours if flat else 0
    channels = "the modalities in order"
    if neighbours:
        channels = (
            f"the slice with its {neighbours} neighbours on both sides, from the lowest index on: "
            "all modalities in order of the first, then of the next; 0 outside the scan"
        )
    return {
        "modalities": list(data.modalities),
        "channels": channels,
        "skull_stripped": data.skull_stripped,
        "normalisation": notes["percentiles"]
        if data.normalisation == "percentiles"
        else notes["normalisation"] + ("" if data.skull_stripped else f" {notes['not_stripped']}"),
        "air": notes["air"] if run.experiment.evaluation.air_is_background else "as the model says",
        "dimensions": 2 if flat else 3,
        "axes": ["superior", "posterior", "left"],
        "slices": {"axis": pipeline.slices.axis, "neighbours": neighbours} if flat else None,
        "spacing": list(data.spacing) if data.spacing else None,
        "size": list(data.size) if data.size else None,
        "evaluation": run.experiment.evaluation.model_dump(mode="json"),
        "inference": _describe_inference(run, ids, notes),
        "postprocessing": run.experiment.postprocessing.model_dump(mode="json"),
        "target": run.target,
        "activation": f"{anatomy.ACTIVATIONS[run.target]}, in the model",
        "regions": list(anatomy.TARGETS[run.target]),
        "labels": label_names(run.target, ids),
        "patch_size": list(pipeline.patch_size),
        "input": {"name": INPUT, "shape": list(exported.shape), "dtype": "float32"},
        "output": {"name": OUTPUT, "dtype": "float32"},
        "dynamic_batch": exported.shape[0] is None,
        "dynamic_size": exported.any_size,
        "runtime": exported.runtime,
        "advice": notes["advice"],
        "versions": {
            "kerasseg": __version__,
            **{name: packages.version(name) for name in ("tensorflow", "keras")},
        },
        "exported": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "run": run.folder.name,
    }


def _describe_inference(
    run: LoadedRun, ids: Mapping[int, int], notes: Mapping[str, str]
) -> dict[str, Any]:
    """Return what makes a label of a normalised volume; `examples/onnx_predict.py` does it."""
    predictor, experiment = run.predictor, run.experiment
    limits = channel_thresholds(
        run.target, experiment.evaluation.threshold, experiment.postprocessing
    )
    softmax = anatomy.ACTIVATIONS[run.target] == "softmax"
    return {
        "window": list(predictor.window),
        "slice_axis": predictor.slice_axis,
        "context": predictor.context,
        "windows": notes["windows"],
        "outside": list(predictor.background),
        "orientations": [
            {"order": list(each.order), "mirrored": list(each.mirrored)}
            for each in predictor.orientations
        ],
        "masks": "the most probable channel" if softmax else "each channel from its threshold on",
        "thresholds": None if softmax else limits,
        "label": {
            "background": int(ids[anatomy.BACKGROUND]),
            "written_over": [[name, int(ids[own])] for name, own in WRITES[run.target].items()],
        },
        "postprocessing": notes["clean_up"],
    }


def _check_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"{error.name or error} is missing, which --format onnx needs: "
            "pip install 'kerasseg[formats]'."
        ) from error
