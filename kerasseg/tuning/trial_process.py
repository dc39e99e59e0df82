"""One run of a trial in a process of its own, so that nothing of it stays in memory.

This is the side of the process that waits; `trial.py` is what runs in the other one. They talk by
files in the job's folder: `config.yaml` and `job.json` go in, `output.txt` and `result.json` come
out.
"""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from kerasseg.config.experiment import Experiment
from kerasseg.config.load import dump_experiment
from kerasseg.files import write_json, write_text
from kerasseg.run import read_history

_COMMAND = (sys.executable, "-m", "kerasseg.tuning.trial")
_SECONDS_TO_SAVE = 120.0
"""A run that is asked to stop may take this long to save its state."""


@dataclass(frozen=True)
class TrialJob:
    """The order for one process.

    Attributes:
        folder: where the files of the job lie.
        experiment: what is trained.
        last_epoch: the epoch after which the process ends.
        objective, direction: the column of history.csv that is the score, and max or min.
        continue_from: folder of the run whose weights and optimiser state are taken over.
        deadline: seconds since 1970 after which the run stops at the end of an epoch.
    """

    folder: Path
    experiment: Experiment
    last_epoch: int
    objective: str
    direction: str
    continue_from: Path | None = None
    deadline: float | None = None

    def write(self) -> None:
        """Write `config.yaml` and `job.json`, which the process reads."""
        self.folder.mkdir(parents=True, exist_ok=True)
        names = ("last_epoch", "objective", "direction", "deadline")
        order = {name: getattr(self, name) for name in names}
        order["continue_from"] = str(self.continue_from) if self.continue_from else None
        write_text(self.folder / "config.yaml", dump_experiment(self.experiment), "search.root")
        write_json(self.folder / "job.json", order, "search.root")


@dataclass
class TrialOutcome:
    """The end of one process.

    Attributes:
        status: `killed` if it ended without writing a result; `stopped` with a reason if it cannot
            go on here through no fault of its settings, as on a full disk.
        score: the best value of the objective, None without a finite one.
        curve: the objective after each epoch.
        peak_memory_gib: of the GPU, or of the process where there is none.
    """

    status: Literal["completed", "failed", "stopped", "killed"]
    reason: str | None = None
    score: float | None = None
    epochs: int = 0
    minutes: float = 0.0
    curve: list[float] = field(default_factory=list)
    peak_memory_gib: float | None = None

    def write(self, folder: Path) -> None:
        """Write `result.json` into the job's folder."""
        write_json(folder / "result.json", asdict(self), "search.root")


def run_in_process(
    job: TrialJob, environment: Mapping[str, str], stop: threading.Event
) -> TrialOutcome:
    """Run a job until it ends, or until `stop` is set; then it may save its state first."""
    result = job.folder / "result.json"
    job.write()
    result.unlink(missing_ok=True)
    began = time.monotonic()
    with (job.folder / "output.txt").open("ab") as output:
        process = subprocess.Popen(
            [*_COMMAND, str(job.folder)],
            # Nothing is written to it: its end tells the process that this one is gone.
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on.
        )
        try:
            asked_to_stop = _wait(process, stop)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            assert process.stdin is not None
            process.stdin.close()
    if result.exists():
        outcome = TrialOutcome(**json.loads(result.read_text(encoding="utf-8")))
    elif asked_to_stop:
        outcome = TrialOutcome("stopped")
    else:
        reason = _explain_exit(process.returncode, job.folder / "output.txt")
        outcome = TrialOutcome("killed", reason)
    outcome.minutes = (time.monotonic() - began) / 60
    return outcome


def _wait(process: "subprocess.Popen[bytes]", stop: threading.Event) -> bool:
    """Wait until the process has ended or is to be killed; return whether `stop` was the reason."""
    while process.poll() is None:
        if stop.is_set():
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_SECONDS_TO_SAVE)
            return True
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
    return False


def _explain_exit(code: int, output: Path) -> str:
    """Say how a process ended that left no result."""
    if code < 0:
        name = signal.Signals(-code).name
        why = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
        return f"the process was killed by {name}{why}"
    lines = output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last_line = f", its last line: {lines[-1]}" if lines else ""
    return f"the process ended with code {code}{last_line} (see {output})"


def trial_environment(gpu: str | None) -> dict[str, str]:
    """Return this process's environment, for a process that sees the GPU `gpu` alone if there is
    one. A trial is no worker of KerasTuner's, so it does not see that it runs under one."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("KERASTUNER_")}
    return kept if gpu is None else kept | {"CUDA_VISIBLE_DEVICES": gpu}


def training_so_far(run: Path, objective: str, direction: str) -> dict[str, Any]:
    """Return `score`, `epochs` and `curve` of an outcome, from the history of a run folder."""
    path = run / "history.csv"
    if not path.exists():
        return {"score": None, "epochs": 0, "curve": []}
    rows = read_history(path)
    curve = [float(row[objective]) for row in rows if row.get(objective)]
    best = max if direction == "max" else min
    score = best((score for score in curve if math.isfinite(score)), default=None)
    return {"score": score, "epochs": len(rows), "curve": curve}
