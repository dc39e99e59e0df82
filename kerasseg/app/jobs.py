"""A prediction of one scan by one run: its place in the queue, its progress, and its result."""

import dataclasses
import secrets
import threading
import time
import traceback
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kerasseg.app.results import Measures, measure
from kerasseg.app.runs import Choices, OfferedRun, Runs
from kerasseg.app.sessions import Scan, Session, mapped
from kerasseg.datasets.labels import label_ids
from kerasseg.errors import UserError
from kerasseg.progress import watched_by
from kerasseg.serving.server.limits import Limits, Refusal, without_folders
from kerasseg.serving.server.models import WorkQueue

_PREPARED, _PREDICTED = 0.05, 0.9
"""The shares of the progress for preparing the scan and for predicting it; measuring is left."""


class _Cancelled(Exception):
    """Ends a prediction that runs."""


@dataclass(eq=False)
class Job:
    """A prediction that waits, runs, or is finished.

    Attributes:
        key: Its name in addresses.
        number: The number of the run.
        choices: What the visitor chose.
        folder: Where its arrays and files lie.
        state: waiting, running, done, failed or cancelled.
        progress: From 0 to 1.
        message: Why it failed.
        seconds: How long it ran.
        label: Canonical ids (D, H, W) when it is done.
        probabilities: (D, H, W, K) float32 when it is done.
        entropy: (D, H, W) float32 in bits, the largest of all channels, if it was asked for.
        corrected: The label (D, H, W) as the visitor has drawn it, if so.
        measures: What is known of the label.
        corrected_measures: What is known of the corrected label.
        lock: Held while a corrected label takes the place of the one before.
    """

    key: str
    scan: Scan
    number: int
    run: OfferedRun
    choices: Choices
    folder: Path
    state: str = "waiting"
    progress: float = 0.0
    message: str = ""
    seconds: float = 0.0
    label: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    entropy: np.ndarray | None = None
    corrected: np.ndarray | None = None
    measures: Measures | None = None
    corrected_measures: Measures | None = None
    notes: list[str] = field(default_factory=list)
    future: Future | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    lock: Any = field(default_factory=threading.Lock, repr=False)

    @property
    def unfinished(self) -> bool:
        """Return whether it waits or runs."""
        return self.state in ("waiting", "running")

    @property
    def target(self) -> str:
        """Return what was predicted, a key of `anatomy.TARGETS`."""
        return self.run.experiment.model.target

    @property
    def ids(self) -> dict[int, int]:
        """Return canonical id -> the id in the files that are downloaded."""
        data = self.run.experiment.data
        return dict(label_ids(None, data, self.target, self.scan.label_ids))

    def describe(self, queue: WorkQueue) -> dict[str, Any]:
        """Return what the page shows of the job."""
        place = queue.place(self.future) if self.future and self.state == "waiting" else 0
        return {
            "id": self.key,
            "scan": self.scan.key,
            "run": self.number,
            "model": self.run.name,
            "target": self.target,
            "choices": self.choices.model_dump(),
            "state": self.state,
            "place": place,
            "progress": round(self.progress, 4),
            "message": self.message,
            "seconds": round(self.seconds, 2),
            "notes": self.notes,
            "entropy": self.entropy is not None,
            "measures": self.measures and dataclasses.asdict(self.measures),
            "corrected": self.corrected_measures and dataclasses.asdict(self.corrected_measures),
        }

    def cancel(self) -> None:
        """Take the job out of the queue, or stop it after the window that it is at."""
        self.cancelled.set()
        if self.future is not None and self.future.cancel():
            self.state = "cancelled"

    def correct(self, label: np.ndarray) -> None:
        """Keep a label (D, H, W) of canonical ids that the visitor has drawn, and measure it."""
        with self.lock:
            self.corrected_measures = measure(label, self.scan.case, self.target)
            for earlier in self.folder.glob("corrected_*.npy"):
                earlier.unlink()  # who still reads it has it mapped
            self.corrected = mapped(self.folder / f"corrected_{secrets.token_hex(4)}.npy", label)


def start_job(
    session: Session,
    scan: Scan,
    number: int,
    choices: Choices,
    runs: Runs,
    queue: WorkQueue,
    limits: Limits,
) -> Job:
    """Put a prediction into the queue.

    Raises `Refusal` if the run or the choices do not fit the scan, or the queue is full.
    """
    runs.check(number, choices)
    run = runs.run(number)
    key = secrets.token_hex(8)
    job = Job(key, scan, number, run, choices, session.folder / key)
    session.add_job(job, lambda: queue.put(lambda: _run(job, runs, limits)))
    return job


def _run(job: Job, runs: Runs, limits: Limits) -> None:
    """Predict, in the queue's thread. Whatever goes wrong is told by the job's message."""
    if job.cancelled.is_set():
        job.state = "cancelled"
        return
    started = time.monotonic()
    job.state = "running"
    try:
        _predict(job, runs, started + limits.seconds)
        job.state = "done"
    except _Cancelled:
        job.state = "cancelled"
    except (UserError, Refusal) as error:
        job.state, job.message = "failed", without_folders(str(error))
    except MemoryError:
        job.state, job.message = "failed", "Memory ran out on the server: send a smaller scan."
    except Exception as error:  # the next visitor's prediction must run, whatever it is
        traceback.print_exc()
        kind = type(error).__name__
        job.state, job.message = "failed", f"The prediction failed ({kind}): the log says more."
    finally:
        job.seconds = time.monotonic() - started


def _predict(job: Job, runs: Runs, until: float) -> None:
    model = runs.model(job.number, job.choices.model_copy(update={"uncertainty": False}))
    passes = model.members if job.choices.uncertainty else 1
    passes += model.runs[0].predictor.boxes_from is not None  # that run predicts the scan first
    begun = -1

    def watch(done: int, total: int, preparing: bool) -> None:
        nonlocal begun
        if job.cancelled.is_set():
            raise _Cancelled
        if time.monotonic() > until:
            raise UserError("The prediction took longer than this server allows, and was stopped.")
        if preparing:
            job.progress = max(job.progress, _PREPARED * (done / total))
            return
        begun += done == 0
        job.progress = _PREPARED + _PREDICTED * (begun + done / total) / passes

    case = dataclasses.replace(job.scan.case, notes=list(job.scan.case.notes))
    with watched_by(watch):
        prediction = model.segment(case, uncertainty=job.choices.uncertainty)
    job.folder.mkdir(parents=True)
    job.probabilities = mapped(job.folder / "probabilities.npy", prediction.probabilities)
    if prediction.entropy is not None:
        job.entropy = mapped(job.folder / "entropy.npy", prediction.entropy.max(axis=-1))
    job.notes = [without_folders(note) for note in prediction.case.notes]
    job.measures = measure(prediction.label, job.scan.case, job.target)
    job.label = mapped(job.folder / "label.npy", prediction.label)
    job.progress = 1.0
