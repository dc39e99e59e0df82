"""The process of a trial: `python -m kerasseg.tuning.trial JOB_FOLDER`, started by `tune.py`."""

import errno
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasseg.config.experiment import Experiment
from kerasseg.config.load import dump_experiment, load_experiment
from kerasseg.errors import UserError
from kerasseg.files import file_lock, write_text
from kerasseg.run import read_history
from kerasseg.tensorflow_setup import start_tensorflow
from kerasseg.tuning.trial_process import TrialOutcome, training_so_far

if TYPE_CHECKING:
    from kerasseg.training.devices import Devices

_LOCKED = "another process trains this trial; two workers of one name are given the same"
_LOCK_SECONDS = 300.0
"""A worker that had this trial before may take this long to save it and to end."""


def main() -> None:
    """Run the job in the folder that is named on the command line."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    _stop_with_parent()
    folder = Path(sys.argv[1])
    run_job(folder).write(folder)


def run_job(folder: Path) -> TrialOutcome:
    """Train the run of the job in `folder`, resuming what there is of it; return how it ended."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    experiment = load_experiment(folder / "config.yaml")
    run = experiment.run.root / experiment.run_name

    def outcome(status: Any, reason: str | None = None) -> TrialOutcome:
        return TrialOutcome(status, reason, **_training_so_far(run, job))

    try:
        with file_lock(
            folder / ".lock",
            "trains this trial",
            "search.root",
            wait=_LOCK_SECONDS,
            refusal=_LOCKED,
        ):
            try:
                return _train(experiment, run, job)
            except UserError as error:
                if not _is_disk_error(error.__cause__):
                    return outcome("failed", str(error))
                # The run's folder lies in the search's.
                return outcome("stopped", str(error).replace("run.root=", "search.root="))
            except KeyboardInterrupt:
                return outcome("stopped")
            except Exception as error:
                traceback.print_exc()
                return outcome("failed", f"{type(error).__name__}: {error}".strip())
    except UserError as error:  # the lock's
        return TrialOutcome("stopped", str(error))


def _train(experiment: Experiment, run: Path, job: dict[str, Any]) -> TrialOutcome:
    _prepare_run_folder(run, experiment, job["continue_from"])

    def choose() -> "Devices":
        from kerasseg.training.devices import choose_devices

        return choose_devices(experiment.training)

    devices = start_tensorflow(choose, hide_optional_packages=True)
    from kerasseg.run_experiment import run_experiment
    from kerasseg.training.callbacks import StopAtDeadline

    deadline = StopAtDeadline(job["deadline"])
    run_experiment(
        experiment,
        resume=(run / "config.yaml").exists(),
        devices=devices,
        last_epoch=job["last_epoch"],
        evaluated=False,
        extra_callbacks=[deadline],
    )
    training = _training_so_far(run, job)
    if deadline.stopped and training["epochs"] < job["last_epoch"]:
        return TrialOutcome("stopped", **training)
    if training["score"] is None:
        columns = [name for name in read_history(run / "history.csv")[0] if name != "epoch"]
        reason = f"search.objective: {job['objective']} is not logged: there are "
        return TrialOutcome("failed", reason + ", ".join(columns) + ".", **training)
    return TrialOutcome("completed", **training)


def _prepare_run_folder(run: Path, experiment: Experiment, continue_from: str | None) -> None:
    """Remove a run folder that cannot be resumed, and copy the one whose training goes on."""
    if (run / "config.yaml").exists():
        return
    shutil.rmtree(run, ignore_errors=True)
    if continue_from is None:
        return
    before = Path(continue_from)
    if not (before / "checkpoints" / "state.npz").exists():
        raise UserError(f"{before}: the run that this trial goes on from is gone.")
    shutil.copytree(before, run, ignore=shutil.ignore_patterns("config.yaml", "summary.json", ".*"))
    # The config comes last: a folder that has one can be resumed.
    write_text(run / "config.yaml", dump_experiment(experiment), "search.root")


def _training_so_far(run: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Return score, epochs and curve of the run, and the memory that it took."""
    training = training_so_far(run, job["objective"], job["direction"])
    training["peak_memory_gib"] = None
    if "tensorflow" in sys.modules:
        from kerasseg.tensorflow_setup import peak_gpu_memory, peak_memory

        peak = peak_gpu_memory() or peak_memory()
        training["peak_memory_gib"] = round(peak / 2**30, 3)
    return training


def _is_disk_error(error: BaseException | None) -> bool:
    """Return whether the disk was full or closed, by which any other trial would fail, too."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
    return "No space left" in str(error)  # as TensorFlow says it


def _stop_with_parent() -> None:
    """Save the state and stop, as on SIGTERM, when the process that waits for this one is gone."""

    def watch() -> None:
        # Not by sys.stdin: a thread that holds its lock ends the interpreter with a fatal error.
        while os.read(0, 1 << 16):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(300.0)
        os._exit(1)  # It hangs, and no parent is left to end it.

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main()
