"""`kerasseg train`: convert if needed, train, evaluate."""

from typing import TYPE_CHECKING, Annotated

import typer

from kerasseg.cli.options import (
    ConfigOption,
    Overrides,
    read_experiment,
    stopped,
    with_tensorflow,
)
from kerasseg.errors import UserError

if TYPE_CHECKING:
    from kerasseg.training.devices import Devices


Fold = Annotated[
    int | None,
    typer.Option("--fold", help="Validate on this part of split.folds; train on the others."),
]


def train(
    overrides: Overrides = None,
    config: ConfigOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the newest run of this name.")
    ] = False,
    fold: Fold = None,
) -> None:
    """Convert scans if needed, train, and evaluate whole volumes.

    All is written into a run folder. Without --config: the demo on generated phantoms.
    """
    experiment = read_experiment(config, overrides, warn=False)  # the run says it
    if fold is not None:
        # A split file may have folds of its own; everything else is cut into split.folds.
        method = "file" if experiment.split.method == "file" else "kfold"
        if method == "file" and not experiment.split.has_folds:
            raise UserError(
                f"--fold {fold}: {experiment.split.file} has a column split, which tells no folds "
                "apart: give it a column fold instead, or leave --fold out."
            )
        chosen = [f"split.method={method}", f"split.fold={fold}"]
        experiment = read_experiment(config, [*(overrides or ()), *chosen], warn=False)

    def choose() -> "Devices":
        from kerasseg.training.devices import choose_devices

        return choose_devices(experiment.training)

    devices = with_tensorflow(choose)
    from kerasseg.run_experiment import run_experiment
    from kerasseg.training.callbacks import Stopped

    try:
        run_experiment(experiment, resume=resume, devices=devices)
    except Stopped as stop:
        raise stopped(stop, "After the batch in progress; --resume goes on there.") from None
    except KeyboardInterrupt as interrupt:
        advice = "If an epoch was finished, --resume goes on after it."
        raise stopped(interrupt, advice) from None
