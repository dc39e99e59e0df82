"""`kerasseg predict`: runs and scans in, files out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from kerasseg.datasets.inputs.find_inputs import find_inputs
from kerasseg.errors import UserError
from kerasseg.prediction.arguments import Arguments
from kerasseg.prediction.model import load
from kerasseg.prediction.origin import claim_folder, origin_of
from kerasseg.prediction.predict_files import Outcome, Wanted, predict_files


def predict(
    arguments: Arguments,
    output: Path,
    *,
    combine: Literal["mean", "vote"] = "mean",
    layout: str | None = None,
    overlays: int | None = None,
    wanted: Wanted = Wanted(),  # noqa: B008 (frozen)
) -> Outcome:
    """Predict every case of the input and write it into `output`.

    overlays: cases that are drawn; None: `evaluation.overlays` of the first run

    Raises `UserError` for what concerns all cases: a run that cannot be loaded, an input without a
    case, an output folder that holds the scans or predictions that were made otherwise.
    """
    for path in arguments.inputs:
        if path.resolve() == output.resolve():
            raise UserError(
                f"--output {output} is the folder of the scans: name one of its own, so that scans "
                "and predictions are not mixed up."
            )
    model = load(*arguments.runs, combine=combine, overrides=arguments.settings)
    inputs = find_inputs(arguments.inputs, model.data, layout, _below(output, arguments.inputs))
    claim_folder(
        output,
        origin_of(model, list(arguments.settings), wanted.labels),
        overwrite=wanted.overwrite,
    )
    drawn = model.runs[0].experiment.evaluation.overlays if overlays is None else overlays
    if wanted.uncertainty and model.members < 2:
        print(
            "One run without test-time augmentation has an entropy and no variance: give several "
            "runs, or evaluation.flips=[width]."
        )
    return predict_files(model, inputs, output, wanted, overlays=drawn)


def _below(output: Path, inputs: Sequence[Path]) -> Path | None:
    """The output folder where it lies in the input: what it holds was not to be predicted."""
    inside = any(path.resolve() in output.resolve().parents for path in inputs)
    return output if inside else None
