"""Options and exit codes that several verbs share, and how a verb starts TensorFlow."""

import os
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from kerasseg.errors import UserError

if TYPE_CHECKING:
    from kerasseg.config.experiment import Experiment
    from kerasseg.prediction.predict_files import Outcome

FOUND_ERRORS = 1
"""Exit code if `verify` found an error or a case of `predict` failed."""

Layout = Literal["brats_nifti", "nnunet", "msd", "nifti", "brats_h5", "lgg", "image_pairs"]
Combine = Literal["mean", "vote"]


def complete_setting(incomplete: str) -> list[str]:
    """Return the settings that begin with `incomplete`, for the shell's completion."""
    from kerasseg.config.messages import known_keys

    keys = list(known_keys())
    leaves = [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]
    return [f"{key}=" for key in leaves if key.startswith(incomplete)]


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="YAML file of the experiment, or a name that kerasseg configs lists [the demo, or "
        "neutral settings for the data set that data.layout and data.root name].",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SECTION.KEY=VALUE",
        help="Settings to change, such as training.epochs=10.",
        autocompletion=complete_setting,
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Folder for the output [reports/<run.name>]."),
]


def _check_labels(text: str | None) -> str | None:
    from kerasseg.datasets.labels import parse_ids

    if text is not None:
        parse_ids(text)
    return text


Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        callback=_check_labels,
        help="Ids of NCR,ED,ET in label files: brats (1,2,4), brats23 (1,2,3), msd (2,1,3) or "
        "three numbers; of tumour of any kind one number [what the data set has].",
    ),
]


def read_experiment(
    config: Path | None, overrides: list[str] | None, *, warn: bool = True
) -> "Experiment":
    """Load the experiment of a config file and apply overrides.

    Without a file it is the demo or, where the overrides name a data set, its neutral settings.
    What its settings make one wonder about is written to standard error, unless the verb has a
    place of its own for it.
    """
    from kerasseg.config.load import DEMO_CONFIG, load_experiment, make_experiment, neutral_values

    neutral = neutral_values(overrides or ()) if config is None else None
    if neutral is not None:
        experiment = make_experiment(neutral, overrides or ())
    else:
        experiment = load_experiment(config or DEMO_CONFIG, overrides or ())
    if warn:
        say_warnings(experiment.warnings)
    return experiment


def say_warnings(warnings: Iterable[str]) -> None:
    """Write what settings make one wonder about to standard error."""
    for warning in warnings:
        typer.echo(f"Warning: {warning}", err=True)


def output_folder(experiment: "Experiment", output: Path | None) -> Path:
    """Return the folder for the files of a verb; it is made if it is missing."""
    folder = output or Path("reports") / experiment.run.name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def stopped(interrupt: KeyboardInterrupt, advice: str) -> typer.Exit:
    """Say that a signal stopped the verb, and return the end of the program, as shells have it."""
    print(f"\nStopped. {advice}", file=sys.stderr)
    return typer.Exit(128 + getattr(interrupt, "number", signal.SIGINT))


def finish_prediction(outcome: "Outcome", output: Path) -> None:
    """Show what `predict` or `segment` wrote, and end with an error if not every case is done."""
    from rich.console import Console

    from kerasseg.prediction.predict import show_outcome

    show_outcome(outcome, output, Console())
    if outcome.stopped:
        raise UserError(f"{outcome.stopped} Finished cases are whole; the same command goes on.")
    if outcome.failed:
        raise typer.Exit(FOUND_ERRORS)


def check_split(split: str) -> None:
    """Raise `UserError` for a part that no split has."""
    if split not in ("test", "validation", "train"):
        raise UserError(f"--split {split}: expected test, validation or train.")


Result = TypeVar("Result")


def with_tensorflow(prepare: Callable[[], Result] | None = None) -> Result | None:
    """Start TensorFlow after `prepare`, or refuse if Keras is set to run on another backend."""
    from kerasseg.tensorflow_setup import start_tensorflow

    backend = os.environ["KERAS_BACKEND"]
    if backend != "tensorflow":
        raise UserError(
            f"KERAS_BACKEND={backend} is set in your environment, but kerasseg trains on "
            "TensorFlow: unset it, or set KERAS_BACKEND=tensorflow."
        )
    return start_tensorflow(prepare)
