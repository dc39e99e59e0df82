"""`kerasseg predict RUN… INPUT`: its arguments, the folder it writes, and what it prints."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import google_crc32c
from rich.console import Console
from rich.table import Table

from kerasseg.config.load import split_settings
from kerasseg.datasets.case import Input
from kerasseg.datasets.checks import format_notes, group_notes
from kerasseg.datasets.inputs import find_inputs
from kerasseg.datasets.labels import CONVENTIONS
from kerasseg.errors import UserError, printable
from kerasseg.prediction.predict_files import Outcome, OutputOptions, predict_files
from kerasseg.run import CHECKPOINT, needed_modalities, own_version, read_run

if TYPE_CHECKING:
    from kerasseg.prediction.model import Model


@dataclass(frozen=True)
class Arguments:
    """The arguments of `kerasseg predict`.

    Attributes:
        runs: the run folders.
        inputs: the scans: a case's folder, a folder of cases, or files.
        settings: settings that differ from those of the runs.
    """

    runs: tuple[Path, ...]
    inputs: tuple[Path, ...]
    settings: tuple[str, ...]


def split_arguments(arguments: Sequence[str]) -> Arguments:
    """Read RUN [RUN…] INPUT [SECTION.KEY=VALUE…].

    The last path is the input, and so are the files before it. Raises `UserError` for fewer than
    two paths, and for an input that does not exist.
    """
    paths, settings = split_settings(arguments)
    if len(paths) < 2:
        raise UserError(
            "kerasseg predict needs a run folder and what it is to predict: kerasseg predict RUN "
            "INPUT --output DIR."
        )
    first = len(paths) - 1
    while first > 1 and paths[first].is_file() and paths[first - 1].is_file():
        first -= 1
    for path in paths[first:]:
        if not path.exists():
            raise UserError(f"INPUT: {path} does not exist (looked from {Path.cwd()}).")
    return Arguments(tuple(paths[:first]), tuple(paths[first:]), settings)


def describe_origin(model: "Model", settings: list[str], labels: str | None) -> dict[str, Any]:
    """Return what a prediction depends on, as `predictions.json` holds it.

    Args:
        model: the model.
        settings: settings that are others than in the runs.
        labels: the convention of label ids that was asked for.
    """
    checkpoints = [run.folder / CHECKPOINT for run in model.runs]
    return {
        "kerasseg": own_version(),
        "runs": [str(run.folder) for run in model.runs],
        "networks": [f"{google_crc32c.value(path.read_bytes()):08x}" for path in checkpoints],
        "combine": model.combine,
        "target": model.target,
        "settings": sorted(settings),
        "postprocessing": [
            run.experiment.postprocessing.model_dump(mode="json") for run in model.runs
        ],
        "labels": labels,
    }


def find_scans(arguments: Arguments, output: Path, layout: str | None = None) -> list[Input]:
    """Find the cases that are to be predicted, before anything starts TensorFlow.

    `layout` is that of the scans, if it is not recognised. Raises `UserError` if a run cannot be
    read, the input holds no case, or it is the output folder.
    """
    runs = [read_run(run, arguments.settings).experiment for run in arguments.runs]
    for path in arguments.inputs:
        if path.resolve() == output.resolve():
            raise UserError(
                f"--output {output} is the folder of the scans: name one of its own, so that scans "
                "and predictions are not mixed up."
            )
    data = runs[0].data.model_copy(update={"modalities": needed_modalities(runs)})
    # Overrides may say how these scans lie; the ids stay those of the data of the training.
    ids = CONVENTIONS[read_run(arguments.runs[0]).experiment.data.facts.convention]
    # The files of an output folder inside an input are not to be predicted.
    inside = any(path.resolve() in output.resolve().parents for path in arguments.inputs)
    found = find_inputs(arguments.inputs, data, layout, output if inside else None)
    return [replace(each, label_ids=each.label_ids or ids) for each in found]


def predict(
    arguments: Arguments,
    output: Path,
    *,
    inputs: list[Input] | None = None,
    combine: Literal["mean", "vote"] = "mean",
    layout: str | None = None,
    overlays: int | None = None,
    options: OutputOptions = OutputOptions(),  # noqa: B008 (frozen)
) -> Outcome:
    """Predict every case of the input.

    Raises `UserError` if a run cannot be loaded, the input holds no case, or the output folder
    holds the scans or predictions that were made otherwise.

    Args:
        inputs: the cases, if `find_scans` has found them already.
        layout: Layout of the scans, if it is not recognised.
        overlays: how many cases are drawn; None takes `evaluation.overlays` of the first run.
    """
    inputs = find_scans(arguments, output, layout) if inputs is None else inputs
    # It starts TensorFlow, which nothing else in this file needs.
    from kerasseg.prediction.model import load

    model = load(*arguments.runs, combine=combine, overrides=arguments.settings)
    origin = describe_origin(model, list(arguments.settings), options.labels)
    drawn = model.runs[0].experiment.evaluation.overlays if overlays is None else overlays
    if options.uncertainty and model.members < 2:
        print(
            "One run without test-time augmentation has an entropy and no variance: give several "
            "runs, or evaluation.flips=[width]."
        )
    return predict_files(model, inputs, output, origin, options, overlays=drawn)


def show_outcome(outcome: Outcome, output: Path, console: Console) -> None:
    """Print how many cases there are now, and a table of those that failed, and why."""
    counts = [f"{len(outcome.written)} case(s) written to {output}"]
    if outcome.skipped:
        counts.append(f"{len(outcome.skipped)} skipped that were finished (--overwrite: anew)")
    if outcome.failed:
        counts.append(f"{len(outcome.failed)} failed")
    console.print(", ".join(counts) + ".", highlight=False, markup=False, soft_wrap=True)
    for line in format_notes(group_notes(outcome.notes.items())):
        text = f"Warning: {line}"
        console.print(text, style="bold yellow", highlight=False, markup=False, soft_wrap=True)
    if outcome.failed:
        table = Table("case", "why it failed")
        for case_id, reason in outcome.failed.items():
            table.add_row(_plain(case_id), _plain(reason))
        console.print(table)


def _plain(text: str) -> str:
    """Escape square brackets, which rich takes for markup, and what cannot be printed."""
    return printable(text).replace("[", "\\[")
