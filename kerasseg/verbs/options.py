"""Arguments and options that several verbs take, and what they stand for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kerasseg.errors import UserError

if TYPE_CHECKING:
    from kerasseg.config import Experiment

Layout = Literal["brats_nifti", "nnunet", "msd", "nifti", "brats_h5", "lgg", "image_pairs"]
Labels = Literal["brats", "brats23", "msd"]
Combine = Literal["mean", "vote"]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file of the experiment.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[SECTION.KEY=VALUE]...", help="Overrides.")
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Folder for what is written [reports/<run.name>]."),
]


def experiment_of(config: Path | None, overrides: list[str] | None) -> "Experiment":
    """The experiment of a config file, or of the demo."""
    from kerasseg.config_file import DEMO_CONFIG, load_experiment

    return load_experiment(config or DEMO_CONFIG, overrides or ())


def output_folder(experiment: "Experiment", output: Path | None) -> Path:
    """The folder for what a verb writes, made if it is missing."""
    folder = output or Path("reports") / experiment.run.name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_split(split: str) -> None:
    """Refuse a side that no split has."""
    if split not in ("test", "validation", "train"):
        raise UserError(f"--split {split}: expected test, validation or train.")
