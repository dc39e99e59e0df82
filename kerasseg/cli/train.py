"""`kerasseg train`, `kerasseg tune`, which searches for better settings, and `tune-report`."""

import os
import platform
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from kerasseg.cli.options import (
    FOUND_ERRORS,
    ConfigOption,
    Overrides,
    read_experiment,
    say_warnings,
    stopped,
    with_tensorflow,
)
from kerasseg.errors import UserError

if TYPE_CHECKING:
    from kerasseg.training.devices import Devices

# KerasTuner's own names, so that its scripts for clusters serve here, too.
_ADDRESS = ("KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")
_WORKER = "KERASTUNER_TUNER_ID"

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

    Everything is written to a run folder. Without --config: the demo on generated phantoms.
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
        raise stopped(stop, "It ended after the current batch; --resume goes on there.") from None


def tune(
    overrides: Overrides = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            help="YAML file of the search, or a name that kerasseg configs lists [tune_phantom].",
        ),
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(
            "--role",
            help="Of several machines: chief gives out the trials, worker runs them "
            f"[{_WORKER}: chief or a worker's name].",
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option("--address", help=f"HOST:PORT of the chief [{':'.join(_ADDRESS)}]."),
    ] = None,
    worker: Annotated[
        str | None,
        typer.Option(
            "--worker",
            help=f"Name of this worker; each needs its own [{_WORKER}, or machine and process].",
        ),
    ] = None,
    gpu: Annotated[
        int | None, typer.Option("--gpu", help="Use this GPU alone, by its number from 0.", min=0)
    ] = None,
    then_train: Annotated[
        bool, typer.Option("--then-train", help="Train the best config fully when it is found.")
    ] = False,
) -> None:
    """Search for better settings with KerasTuner. Each trial is a process.

    Without --config: a small search on generated phantoms. The same command goes on after a stop.
    """
    role, address, worker = resolve_role(role, address, worker)
    if role == "worker" and then_train:
        raise UserError("--then-train is for the chief: leave it out on a worker.")
    if role == "chief" and gpu is not None:
        raise UserError("--gpu is for workers: a chief trains nothing.")
    from kerasseg.tuning.search import load_search

    search = load_search(config, overrides or ())
    say_warnings(search.base.warnings)
    _start_tensorflow_without_gpus()
    from kerasseg.tuning.tune import tune as tune_here
    from kerasseg.tuning.tune import tune_as_chief, tune_as_worker

    if role == "worker":
        return tune_as_worker(search, address, worker, gpu=gpu)
    best = tune_as_chief(search, address) if role == "chief" else tune_here(search, gpu=gpu)
    if best is None:
        raise typer.Exit(FOUND_ERRORS)
    if then_train:
        become_train(best)


def become_train(best: Path) -> NoReturn:
    """Turn this process into `kerasseg train` on `best`, resuming a run of the same config."""
    from kerasseg.config.load import load_experiment
    from kerasseg.run import latest_run_folder

    command = [sys.executable, "-m", "kerasseg.cli", "train", "--config", str(best)]
    with suppress(UserError):
        latest_run_folder(load_experiment(best))
        command.append("--resume")
    sys.stdout.flush()
    os.execv(sys.executable, command)  # Signals and the exit code are then its own.


def resolve_role(
    role: str | None, address: str | None, worker: str | None
) -> tuple[str | None, str, str]:
    """Return role, HOST:PORT of the chief and the worker's name.

    The arguments are those of the command line; KerasTuner's environment variables stand in for
    those that are missing. Without a role, the search is on this machine alone.
    """
    host, port = (os.environ.get(name) for name in _ADDRESS)
    name = os.environ.get(_WORKER)
    if role is None and address is None and host is not None:
        if port is None or name is None:
            missing = _ADDRESS[1] if port is None else _WORKER
            raise UserError(
                f"{_ADDRESS[0]}={host} is set in your environment, but {missing} is "
                "not: set it, too, or unset the first."
            )
        role = "chief" if "chief" in name else "worker"  # This is KerasTuner's rule.
    if role is None:
        if address is not None or worker is not None:
            option = "--address" if address is not None else "--worker"
            raise UserError(f"{option} is for several machines: add --role chief or --role worker.")
        return None, "", ""
    if role not in ("chief", "worker"):
        raise UserError(f"--role {role}: expected chief or worker.")
    if address is None and host is not None and port is not None:
        address = f"{host}:{port}"
    if address is None:
        raise UserError(f"--role {role} needs --address HOST:PORT, that of the chief.")
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(
            f"--address {address}: expected HOST:PORT, such as 10.0.0.1:8000; ports end at 65535."
        )
    if role == "chief" and worker is not None:
        raise UserError("--worker names a worker: leave it out on the chief.")
    return role, address, worker or name or f"{platform.node()}-{os.getpid()}"


def _start_tensorflow_without_gpus() -> None:
    """Start TensorFlow, which KerasTuner imports, and leave the GPUs to the trials."""
    from kerasseg.tensorflow_setup import start_tensorflow

    def hide_gpus() -> None:
        import tensorflow as tf

        tf.config.set_visible_devices([], "GPU")

    start_tensorflow(hide_gpus)


def tune_report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a search.")],
) -> None:
    """Draw a search for settings on one page.

    It has trials, parallel coordinates, importance, curves and time.
    """
    from kerasseg.tuning.report.write_tune_report import write_tune_report

    typer.echo(f"Look at {write_tune_report(folder)}")
