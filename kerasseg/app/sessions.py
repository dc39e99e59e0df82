"""The session of a browser: its files, scans and jobs, in a folder that goes with it.

A browser is known by an unguessable cookie, and sees its own session only.
"""

import dataclasses
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kerasseg import anatomy
from kerasseg.datasets.case import Case
from kerasseg.datasets.checks import check_case
from kerasseg.serving.server.limits import Reason, Refusal

_IDLE_SECONDS = 3600.0
_MOST_SESSIONS = 64
_MOST_SCANS, _MOST_JOBS = 4, 8
"""The most that one session keeps; the oldest goes first, so that the disk does not fill up."""
_FREE_BYTES = 2 * 2**30
"""The bytes that must be free on the disk before anything new is written to it."""


@dataclass(eq=False)
class Scan:
    """A scan that can be predicted.

    Attributes:
        key: Its name in addresses.
        case: The raw case. Its arrays are mapped from files, and take memory when they are read.
        picture: It is a single picture, so its label is downloaded as a picture, too.
        label_ids: Canonical id -> the id in files, where the scan's own files say it.
        folder: Where its arrays lie.
    """

    key: str
    case: Case
    picture: bool
    label_ids: Mapping[int, int] | None
    folder: Path

    def describe(self) -> dict[str, Any]:
        """Return what the page shows of the scan."""
        case = self.case
        return {
            "id": self.key,
            "name": case.case_id,
            "shape": list(case.image.shape[:3]),
            "to_mm": case.affine[:3].tolist(),
            "to_voxel": np.linalg.inv(case.affine)[:3].tolist(),
            "modalities": [
                {"id": index, "key": name, "title": anatomy.MODALITY_TITLES.get(name, name)}
                for index, name in enumerate(case.modalities)
            ],
            "truth": case.label is not None,
            "picture": self.picture,
            "notes": list(case.notes),
        }


@dataclass
class TrayFile:
    """A file that was sent, what it is taken for, and the bytes that it takes unpacked."""

    path: Path
    role: str
    kind: str
    size: float


@dataclass(eq=False)
class Session:
    """The files, scans and jobs of one browser.

    Attributes:
        key: The value of its cookie.
        folder: Its folder, which is made when something is written into it.
        tray: Files that were sent and are no scan yet, by their names.
        scans: Its scans by their keys.
        jobs: Its predictions, each a `jobs.Job`, by their keys.
        lock: Held while one of the dictionaries changes.
    """

    key: str
    folder: Path
    tray: dict[str, TrayFile] = field(default_factory=dict)
    scans: dict[str, Scan] = field(default_factory=dict)
    jobs: dict[str, Any] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.RLock, repr=False)
    used: float = field(default_factory=time.monotonic)

    @property
    def tray_folder(self) -> Path:
        """Return the folder of the files in the tray."""
        return self.folder / "tray"

    @property
    def busy(self) -> bool:
        """Return whether a job waits or runs."""
        # A copy: the lock may be held for long, and jobs come and go in other threads.
        return any(job.unfinished for job in list(self.jobs.values()))

    def clear_tray(self) -> None:
        """Forget the files that are no scan yet."""
        with self.lock:
            self.tray.clear()
            shutil.rmtree(self.tray_folder, ignore_errors=True)

    def add_scan(
        self, case: Case, picture: bool = False, label_ids: Mapping[int, int] | None = None
    ) -> Scan:
        """Check a raw case, write its arrays into files, and return it as a scan.

        Raises `UserError` as `check_case` does.
        """
        self._check_disk()
        case = check_case(case)
        folder = self.folder / (key := secrets.token_hex(8))
        with self.lock:
            while len(self.scans) >= _MOST_SCANS:
                oldest = next(iter(self.scans))
                if any(job.scan.key == oldest and job.unfinished for job in self.jobs.values()):
                    raise Refusal(Reason.TOO_MANY, "Wait until your predictions are finished.")
                self._remove_scan(oldest)
            folder.mkdir(parents=True)
            image = mapped(folder / "image.npy", case.image)
            label = None if case.label is None else mapped(folder / "truth.npy", case.label)
            kept = dataclasses.replace(case, image=image, label=label, signal=None)
            self.scans[key] = Scan(key, kept, picture, label_ids, folder)
            return self.scans[key]

    def add_job(self, job: Any, queued: Callable[[], Any]) -> None:
        """Add a job; the oldest one that is finished makes room where there are too many.

        Raises `Refusal`, and removes none, if `queued` does, which puts the job into a queue.
        """
        self._check_disk()
        with self.lock:
            finished = [j for j in self.jobs.values() if not j.unfinished]
            full = len(self.jobs) >= _MOST_JOBS
            if full and not finished:
                raise Refusal(Reason.TOO_MANY, f"{_MOST_JOBS} of your predictions wait already.")
            job.future = queued()
            if full:
                self.remove_job(finished[0].key)
            self.jobs[job.key] = job

    def remove_job(self, key: str) -> None:
        """Remove a job and its files."""
        with self.lock:
            shutil.rmtree(self.jobs.pop(key).folder, ignore_errors=True)

    def _check_disk(self) -> None:
        if shutil.disk_usage(self.folder.parent).free < _FREE_BYTES:
            raise Refusal(Reason.TOO_MANY, "The server's disk is nearly full: try again later.")

    def _remove_scan(self, key: str) -> None:
        for job in [job for job in self.jobs.values() if job.scan.key == key]:
            self.remove_job(job.key)
        shutil.rmtree(self.scans.pop(key).folder, ignore_errors=True)

    def scan(self, key: str) -> Scan:
        """Return a scan of this session, or raise `Refusal`."""
        return _own(self.scans, key, "scan")

    def job(self, key: str) -> Any:
        """Return a job of this session, or raise `Refusal`."""
        return _own(self.jobs, key, "prediction")


def _own(things: Mapping[str, Any], key: str, what: str) -> Any:
    if key not in things:
        raise Refusal(Reason.NOT_FOUND, f"There is no such {what}; it may have been removed.")
    return things[key]


def mapped(path: Path, array: np.ndarray) -> np.ndarray:
    """Write an array to a file, and return it mapped from there."""
    np.save(path, array)
    result: np.ndarray = np.load(path, mmap_mode="r")
    return result


class Sessions:
    """All sessions of a server."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def find(self, key: str | None) -> Session | None:
        """Return the session of a cookie, or None if there is none any more."""
        with self._lock:
            session = self._sessions.get(key or "")
        if session is not None:
            session.used = time.monotonic()
        return session

    def new(self) -> Session:
        """Return a new session; raise `Refusal` if all sessions that there may be are in use."""
        self.expire()
        with self._lock:
            if len(self._sessions) >= _MOST_SESSIONS:
                # Those that hold nothing go first: a visitor who only looked loses nothing.
                empty = [s for s in self._sessions.values() if not (s.scans or s.tray or s.busy)]
                if not empty:
                    raise Refusal(Reason.TOO_MANY, "Too many visitors are here: try again later.")
                self._remove(min(empty, key=lambda session: session.used))
            key = secrets.token_urlsafe(24)
            session = self._sessions[key] = Session(key, self._root / secrets.token_hex(8))
        return session

    def expire(self, idle: float = _IDLE_SECONDS) -> None:
        """Remove the sessions that nobody has used for that many seconds, with their files."""
        limit = time.monotonic() - idle
        with self._lock:
            for session in list(self._sessions.values()):
                if session.used <= limit and not session.busy:
                    self._remove(session)

    def _remove(self, session: Session) -> None:
        del self._sessions[session.key]
        shutil.rmtree(session.folder, ignore_errors=True)
