"""`kerasseg predict`: runs and scans in, files out.

What stands on the command line of `kerasseg predict`.

`predictions.json`: by what the predictions in a folder were made.

What `kerasseg predict` says at its end.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import google_crc32c
from rich.console import Console
from rich.table import Table

from kerasseg import __version__
from kerasseg.datasets.inputs import find_inputs
from kerasseg.errors import UserError, storage_error
from kerasseg.files import atomic_write
from kerasseg.prediction.predict_files import Outcome, Wanted, predict_files

if TYPE_CHECKING:
    from kerasseg.prediction.model import Model


_SETTING = re.compile(r"^[a-z_]+(\.\w+)+=")


@dataclass(frozen=True)
class Arguments:
    """Run folders, what they are to predict, and settings that are to be others."""

    runs: tuple[Path, ...]
    inputs: tuple[Path, ...]
    settings: tuple[str, ...]


def split_settings(words: Sequence[str]) -> tuple[list[Path], tuple[str, ...]]:
    """Paths, and SECTION.KEY=VALUE that is no path."""
    settings = tuple(word for word in words if _SETTING.match(word) and not Path(word).exists())
    return [Path(word) for word in words if word not in settings], settings


def split_arguments(words: Sequence[str]) -> Arguments:
    """RUN [RUN…] INPUT [SECTION.KEY=VALUE…]: the last path is the input; files before it are, too.

    Raises `UserError` for fewer than two paths, and for an input that does not exist.
    """
    paths, settings = split_settings(words)
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


FILE_NAME = "predictions.json"
_MUST_MATCH = ("networks", "combine", "settings", "labels")
_SHOWN = {"networks": "runs"}
"""Of networks there are only check sums; what they are called is said instead."""


def origin_of(model: "Model", settings: list[str], labels: str | None) -> dict[str, Any]:
    """What changes a prediction.

    settings: the overrides
    labels:   the convention of ids that was asked for
    """
    checkpoints = [run.folder / "checkpoints" / "best.keras" for run in model.runs]
    return {
        "kerasseg": __version__,
        "runs": [str(run.folder) for run in model.runs],
        "networks": [f"{google_crc32c.value(path.read_bytes()):08x}" for path in checkpoints],
        "combine": model.combine,
        "target": model.target,
        "settings": sorted(settings),
        "labels": labels,
    }


def claim_folder(folder: Path, origin: dict[str, Any], *, overwrite: bool) -> None:
    """Make the folder if it is missing and write `origin` into it.

    Raises `UserError` if there are predictions that something else made, unless `overwrite`.
    """
    path = folder / FILE_NAME
    if path.is_file() and not overwrite:
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
            other = [key for key in _MUST_MATCH if there.get(key) != origin[key]]
        except (OSError, ValueError, AttributeError):
            other, there = ["runs"], {"runs": "that cannot be read"}
        if other:
            words = [f"{_SHOWN.get(key, key)} {there.get(_SHOWN.get(key, key))}" for key in other]
            raise UserError(
                f"{folder} holds predictions that were made otherwise (with "
                f"{', '.join(words)}): name another folder with --output, or make them anew with "
                "--overwrite."
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, f"Making the folder {folder}", "--output") from error
    with atomic_write(path, "--output") as temporary:
        temporary.write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")


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
    # It starts TensorFlow, which nothing else in this file needs.
    from kerasseg.prediction.model import load

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


def show_outcome(outcome: Outcome, output: Path, console: Console) -> None:
    """How many cases there are now, and a table of those that failed, and why."""
    words = [f"{len(outcome.written)} case(s) written to {output}"]
    if outcome.skipped:
        words.append(f"{len(outcome.skipped)} skipped that were finished (--overwrite: anew)")
    if outcome.failed:
        words.append(f"{len(outcome.failed)} failed")
    console.print(", ".join(words) + ".", highlight=False, markup=False, soft_wrap=True)
    if outcome.failed:
        table = Table("case", "why it failed")
        for case_id, reason in outcome.failed.items():
            table.add_row(_plain(case_id), _plain(reason))
        console.print(table)


def _plain(words: str) -> str:
    """Square brackets are no markup."""
    return words.replace("[", "\\[")
