"""`kerasseg export`: runs to a model that TensorFlow Serving or another runtime loads."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from kerasseg.errors import UserError
from kerasseg.verbs.options import Combine, Labels
from kerasseg.verbs.with_tensorflow import with_tensorflow

Format = Literal["savedmodel", "onnx", "openvino", "litert"]
Precision = Literal["float32", "float16", "int8"]


def export(
    words: Annotated[
        list[str],
        typer.Argument(metavar="RUN... [SECTION.KEY=VALUE]...", help="Run folders; overrides."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="Folder of the model, models/NAME; each export is a version. Other formats: "
            "models/NAME.onnx, models/NAME.tflite, or the folder models/NAME of openvino.",
        ),
    ],
    labels: Annotated[
        Labels | None,
        typer.Option(
            help="Ids in the labels: brats NCR 1, ED 2, ET 4; brats23 1, 2, 3; msd 2, 1, 3. "
            "Default: those of the run's data set."
        ),
    ] = None,
    combine: Annotated[
        Combine | None,
        typer.Option(help="Several runs: mean of probabilities [default], or vote of masks."),
    ] = None,
    largest_volume: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=2**30,
            help="Voxels (depth x height x width) a request may have. [default: 67108864]",
        ),
    ] = None,
    gzip: Annotated[
        bool | None, typer.Option("--gzip/--no-gzip", help="Take compressed volumes [default].")
    ] = None,
    format: Annotated[
        Format,
        typer.Option(
            "--format", help="The others hold the network of one run: patches to probabilities."
        ),
    ] = "savedmodel",
    precision: Annotated[
        Precision | None,
        typer.Option(help="Of onnx, openvino and litert. [default: float32]"),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Mean Dice that float16 and int8 may lose on the run's validation cases. "
            "[default: 0.01]",
        ),
    ] = None,
) -> None:
    """Write runs as one SavedModel that takes raw scans, with what a server needs.

    Several runs are one model. docs/serving.md says how it is started and asked. With --format the
    network of one run for onnxruntime, OpenVINO or LiteRT.
    """
    from kerasseg.prediction.arguments import split_settings

    runs, settings = split_settings(words)
    if not runs:
        raise UserError("kerasseg export needs a run folder: kerasseg export RUN --output DIR.")
    whole = {"--combine": combine, "--largest-volume": largest_volume, "--gzip": gzip}
    patches = {"--precision": precision, "--tolerance": tolerance}
    _refuse(format, patches if format == "savedmodel" else whole)
    if format != "savedmodel":
        if settings:
            raise UserError(
                f"--format {format} holds the network alone, which {settings[0]} does not change: "
                "leave it out, or export without --format."
            )
        if tolerance is not None and precision in (None, "float32"):
            raise UserError("--tolerance is of --precision float16 and int8: leave it out.")
        _export_patch_model(runs, output, format, precision, labels, tolerance)
        return
    with_tensorflow()
    from kerasseg.serving.export.export_runs import LARGEST_VOLUME, Wanted, export_runs

    wanted = Wanted(combine or "mean", labels, largest_volume or LARGEST_VOLUME, gzip is not False)
    version, written = export_runs(runs, output, wanted, settings)
    print(f"{version}: ready to be served; beside it {', '.join(path.name for path in written)}.")


def _refuse(format: Format, options: dict[str, Any]) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        others = "savedmodel" if format != "savedmodel" else "onnx, openvino and litert"
        raise UserError(f"{given[0]} is of --format {others}, not {format}: leave it out.")


def _export_patch_model(
    runs: list[Path],
    output: Path,
    format: Literal["onnx", "openvino", "litert"],
    precision: Precision | None,
    labels: str | None,
    tolerance: float | None,
) -> None:
    with_tensorflow()
    from kerasseg.serving.formats.export_patch_model import (
        DICE_TOLERANCE,
        PatchModelWanted,
        export_patch_model,
    )

    allowed = DICE_TOLERANCE if tolerance is None else tolerance
    wanted = PatchModelWanted(format, precision or "float32", labels, allowed)
    (model, sheet), told = export_patch_model(runs, output, wanted)
    check, dice = told["check"], told["dice"]
    limit = "" if check["allowed"] is None else f", {check['allowed']:g} is allowed"
    print(f"{model}: largest difference of a probability {check['largest_difference']:.2g}{limit}.")
    if isinstance(dice, dict):
        print(
            f"Mean Dice of {dice['cases']} validation cases: {dice['exported']:.4f}, of the "
            f"network {dice['network']:.4f}; it may lose {dice['tolerance']:g}."
        )
    else:
        print(f"Mean Dice {dice}.")
    print(f"{sheet}: what goes in and what comes out.")
