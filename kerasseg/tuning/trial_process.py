"""What a run folder says of the objective.

One execution of a trial: a run in a process of its own, so that nothing of it stays behind.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from kerasseg.config.experiment import Experiment
from kerasseg.config.load import dump_experiment
from kerasseg.files import atomic_write

_COMMAND = (sys.executable, "-m", "kerasseg.tuning.trial")
_SECONDS_TO_SAVE = 120.0
"""Time that a run has to save its state when it is asked to stop."""


@dataclass(frozen=True)
class Job:
    """What the process is to do.

    folder:        of the job itself: what the process is told, says and leaves
    last_epoch:    the epoch after which it ends
    continue_from: run folder of the trial that it goes on from
    until:         seconds since 1970 after which it stops at the end of an epoch
    """

    folder: Path
    experiment: Experiment
    last_epoch: int
    objective: str
    direction: str
    continue_from: Path | None = None
    until: float | None = None


@dataclass
class Outcome:
    """How it went. `killed`: it ended without a word, by the signal or in the way of `reason`.
    `stopped` with a reason: it cannot go on here, by no fault of its settings."""

    status: Literal["completed", "failed", "stopped", "killed"]
    reason: str | None = None
    score: float | None = None
    epochs: int = 0
    minutes: float = 0.0
    curve: list[float] = field(default_factory=list)
    peak_memory_gib: float | None = None


def run_in_process(job: Job, environment: Mapping[str, str], stop: threading.Event) -> Outcome:
    """Run a job to its end, or until `stop` is set, which lets it save its state first."""
    result = job.folder / "result.json"
    _write_job(job)
    result.unlink(missing_ok=True)
    began = time.monotonic()
    with (job.folder / "output.txt").open("ab") as output:
        process = subprocess.Popen(
            [*_COMMAND, str(job.folder)],
            # Never written to: its end tells the process that this one is gone.
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,  # Ctrl-C comes to this process alone, which passes it on
        )
        try:
            asked = _wait(process, stop)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            assert process.stdin is not None
            process.stdin.close()
    outcome = _outcome(result, process.returncode, job.folder / "output.txt", asked)
    outcome.minutes = (time.monotonic() - began) / 60
    return outcome


def _wait(process: "subprocess.Popen[bytes]", stop: threading.Event) -> bool:
    """Until the process has ended; whether it was asked to."""
    while process.poll() is None:
        if stop.wait(0.0):
            process.terminate()
            try:
                process.wait(_SECONDS_TO_SAVE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            return True
        try:
            process.wait(0.2)
        except subprocess.TimeoutExpired:
            continue
    return False


def _write_job(job: Job) -> None:
    job.folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(job.folder / "config.yaml", "search.root") as temporary:
        temporary.write_text(dump_experiment(job.experiment), encoding="utf-8")
    told = {name: getattr(job, name) for name in ("last_epoch", "objective", "direction", "until")}
    told["continue_from"] = str(job.continue_from) if job.continue_from else None
    with atomic_write(job.folder / "job.json", "search.root") as temporary:
        temporary.write_text(json.dumps(told), encoding="utf-8")


def _outcome(result: Path, code: int, output: Path, asked: bool) -> Outcome:
    if result.exists():
        return Outcome(**json.loads(result.read_text(encoding="utf-8")))
    if asked:
        return Outcome("stopped")
    if code < 0:
        name = signal.Signals(-code).name
        why = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
        return Outcome("killed", f"the process was killed by {name}{why}")
    last = output.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    said = f", its last words: {last[0]}" if last else ""
    return Outcome("killed", f"the process ended with code {code}{said} (see {output})")


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """What the process leaves, in one step."""
    with atomic_write(folder / "result.json", "search.root") as temporary:
        temporary.write_text(json.dumps(asdict(outcome)), encoding="utf-8")


def environment_on(gpu: str | None) -> dict[str, str]:
    """This process's environment, for one that sees this GPU only, or as it is."""
    own: dict[str, Any] = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
    # The trial is a process of its own, no worker of KerasTuner's.
    kept = {name: text for name, text in os.environ.items() if not name.startswith("KERASTUNER_")}
    return kept | own


def trained_so_far(run: Path, objective: str, direction: str) -> dict[str, Any]:
    """The best finite score (None without one), the epochs, and the curve, a number per epoch."""
    path = run / "history.csv"
    if not path.exists():
        return {"score": None, "epochs": 0, "curve": []}
    from kerasseg.run import read_history

    rows = read_history(path)
    curve = [float(row[objective]) for row in rows if row.get(objective)]
    best = max if direction == "max" else min
    score = best((score for score in curve if score - score == 0), default=None)
    return {"score": score, "epochs": len(rows), "curve": curve}
