"""Options and exit codes that several verbs share, and how a verb starts TensorFlow."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from kerasseg.errors import UserError

if TYPE_CHECKING:
    from kerasseg.config.experiment import Experiment


USER_MISTAKE = 2
"""Exit code after an error that the user can correct."""
FOUND_ERRORS = 1
"""Exit code if `verify` found an error or a case of `predict` failed."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""
TERMINATED = 143
"""Exit code after SIGTERM, as shells have it."""


Layout = Literal["brats_nifti", "nnunet", "msd", "nifti", "brats_h5", "lgg", "image_pairs"]
Labels = Literal["brats", "brats23", "msd"]
Combine = Literal["mean", "vote"]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="YAML file of the experiment, or a name that kerasseg configs lists [the demo].",
    ),
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[SECTION.KEY=VALUE]...", help="Overrides.")
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Folder for what is written [reports/<run.name>]."),
]


def read_experiment(
    config: Path | None, overrides: list[str] | None, *, warn: bool = True
) -> "Experiment":
    """Load the experiment of a config file, or the demo if none is named, and apply overrides.

    What its settings make one wonder about is written to standard error, unless the verb has a
    place of its own for it.
    """
    from kerasseg.config.load import DEMO_CONFIG, load_experiment

    experiment = load_experiment(config or DEMO_CONFIG, overrides or ())
    if warn:
        say_warnings(experiment)
    return experiment


def say_warnings(experiment: "Experiment") -> None:
    """Write what the settings of an experiment make one wonder about to standard error."""
    for warning in experiment.warnings:
        typer.echo(f"Warning: {warning}", err=True)


def output_folder(experiment: "Experiment", output: Path | None) -> Path:
    """Return the folder for the files of a verb; it is made if it is missing."""
    folder = output or Path("reports") / experiment.run.name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


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
