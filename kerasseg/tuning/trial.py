"""The process of a trial: `python -m kerasseg.tuning.trial JOB_FOLDER`, started by `tune.py`.

An end at a time of day.
"""

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

import keras

from kerasseg.config.experiment import Experiment
from kerasseg.config.load import dump_experiment, load_experiment
from kerasseg.errors import UserError
from kerasseg.files import atomic_write, file_lock
from kerasseg.tensorflow_setup import start_tensorflow
from kerasseg.tuning.trial_process import Outcome, trained_so_far, write_outcome

if TYPE_CHECKING:
    from kerasseg.training.devices import Devices


class StopAt(keras.callbacks.Callback):
    """Stops the training at the end of the first epoch after `when`, in seconds since 1970.

    None never does. `stopped` says whether it has.
    """

    def __init__(self, when: float | None) -> None:
        super().__init__()
        self.when = when
        self.stopped = False

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.when is not None and time.time() >= self.when:
            self.stopped = True
            self.model.stop_training = True


_LOCKED = "another process trains this trial; two workers of one name are given the same"
_SECONDS_FOR_OTHERS = 300.0
"""That a worker to whom the trial belonged before has to save it and let go."""


def run_job(folder: Path) -> Outcome:
    """Train the run of the job in `folder`, going on where it stands, and say how it went."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    experiment = load_experiment(folder / "config.yaml")
    run = experiment.run.root / experiment.run_name
    try:
        with file_lock(
            folder / ".lock",
            "trains this trial",
            "search.root",
            wait=_SECONDS_FOR_OTHERS,
            refusal=_LOCKED,
        ):
            return _trained(experiment, run, job)
    except UserError as error:
        return Outcome("stopped", str(error))


def _trained(experiment: Experiment, run: Path, job: dict[str, Any]) -> Outcome:
    try:
        return _train(experiment, run, job)
    except UserError as error:
        if not _is_of_the_disk(error.__cause__):
            return Outcome("failed", str(error), **_so_far(run, job))
        # The run's folder is the search's.
        reason = str(error).replace("run.root=", "search.root=")
        return Outcome("stopped", reason, **_so_far(run, job))
    except KeyboardInterrupt:
        return Outcome("stopped", **_so_far(run, job))
    except Exception as error:
        traceback.print_exc()
        said = f"{type(error).__name__}: {error}".strip()
        return Outcome("failed", said, **_so_far(run, job))


def _train(experiment: Experiment, run: Path, job: dict[str, Any]) -> Outcome:
    _prepare(run, experiment, job["continue_from"])

    def choose() -> "Devices":
        from kerasseg.training.devices import choose_devices

        return choose_devices(experiment.training)

    devices = start_tensorflow(choose, hide_optional_packages=True)
    from kerasseg.train import run_experiment

    clock = StopAt(job["until"])
    run_experiment(
        experiment,
        resume=(run / "config.yaml").exists(),
        devices=devices,
        last_epoch=job["last_epoch"],
        evaluated=False,
        extra_callbacks=[clock],
    )
    found = _so_far(run, job)
    if clock.stopped and found["epochs"] < job["last_epoch"]:
        return Outcome("stopped", **found)
    if found["score"] is None:
        from kerasseg.run import read_history

        columns = [name for name in read_history(run / "history.csv")[0] if name != "epoch"]
        reason = f"search.objective: {job['objective']} is not logged: there are "
        return Outcome("failed", reason + ", ".join(columns) + ".", **found)
    return Outcome("completed", **found)


def _is_of_the_disk(error: BaseException | None) -> bool:
    """Whether any other trial would have failed in the same way."""
    full_or_closed = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
    if isinstance(error, OSError):
        return error.errno in full_or_closed
    return "No space left" in str(error)  # TensorFlow's word for it


def _prepare(run: Path, experiment: Experiment, continue_from: str | None) -> None:
    """Remove what cannot be resumed, and take over what is gone on from."""
    if (run / "config.yaml").exists():
        return
    shutil.rmtree(run, ignore_errors=True)
    if continue_from is None:
        return
    before = Path(continue_from)
    if not (before / "checkpoints" / "state.npz").exists():
        raise UserError(f"{before}: the run that this trial goes on from is gone.")
    shutil.copytree(before, run, ignore=shutil.ignore_patterns("config.yaml", "summary.json", ".*"))
    # The config last: a folder that has one can be resumed.
    with atomic_write(run / "config.yaml", "search.root") as temporary:
        temporary.write_text(dump_experiment(experiment), encoding="utf-8")


def _so_far(run: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Score, epochs, curve and memory of what has been trained."""
    found = trained_so_far(run, job["objective"], job["direction"]) | {"peak_memory_gib": None}
    if "tensorflow" in sys.modules:
        from kerasseg.tensorflow_setup import peak_gpu_memory, peak_memory

        found["peak_memory_gib"] = round((peak_gpu_memory() or peak_memory()) / 2**30, 3)
    return found


def _end_with_parent() -> None:
    """Stop as on SIGTERM, saving the state, when the process that waits for this one is gone."""

    def watch() -> None:
        sys.stdin.buffer.read()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(300.0)
        os._exit(1)  # it hangs, and nobody is there to end it

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Entry point."""

    def interrupted(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupted)
    _end_with_parent()
    folder = Path(sys.argv[1])
    write_outcome(folder, run_job(folder))


if __name__ == "__main__":
    main()
