"""The models that a server answers with: they are loaded, replaced by newer versions, and queued.

`Models` is a folder of models, `ServedModel` one model in it. A version in memory is a
`loaded_version.LoadedVersion`.
"""

import gc
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerasseg.serving.protocol import version_number
from kerasseg.serving.server.limits import Limits, Reason, Refusal, without_folders


class Models:
    """The models of a folder by name; each has a thread that looks for its new versions.

    Args:
        root: Folder of NAME/VERSION/saved_model.pb.
        load: Called with (name, version, folder, limits); returns a loaded and warmed version.
        say: Called with each line for the person who watches the server.
    """

    def __init__(
        self, root: Path, limits: Limits, load: Callable[..., Any], say: Callable[[str], None]
    ) -> None:
        self.limits = limits
        self._root, self._load, self._say = root, load, say
        self._served: dict[str, ServedModel] = {}
        self._stop = threading.Event()
        self._seconds: float | None = None

    def update(self) -> None:
        """Load every model and version that is new, one after the other."""
        self.find()
        for served in self.all():
            served.update()

    def find(self) -> None:
        """Find the models that are new; nothing is loaded. Other folders are passed over."""
        names = [entry.name for entry in os.scandir(self._root) if entry.is_dir()]
        for name in sorted(set(names) - set(self._served)):
            versions = None
            with suppress(OSError):  # a folder of others
                versions = find_versions(self._root / name)
            if not versions:
                continue
            served = ServedModel(self._root / name, self.limits, self._load, self._say)
            # A new dictionary, as other threads read the one that is there.
            self._served = {**self._served, name: served}
            if self._seconds is not None:
                served.watch(self._seconds, self._stop)

    def watch(self, seconds: float) -> None:
        """Look for models and versions every so many seconds, in threads, until `close`.

        Returns when those that are there by now have been loaded, or could not be. Each model has a
        thread of its own, so that none waits for another one that takes long to load.
        """
        self._seconds = seconds
        for served in self.all():
            served.watch(seconds, self._stop)
        self.find()
        here = self.all()
        _repeat(self.find, seconds, self._stop, str(self._root), self._say)
        for served in here:
            served.looked.wait()

    def model(self, name: str) -> "ServedModel":
        """Return the model of that name, or raise `Refusal` if there is none."""
        served = self._served
        if name not in served:
            there = ", ".join(sorted(served)) or "none yet"
            raise Refusal(Reason.NOT_FOUND, f"There is no model {name!r}; there is {there}.")
        return served[name]

    def all(self) -> list["ServedModel"]:
        """Return the models, sorted by name."""
        return [served for _, served in sorted(self._served.items())]

    @property
    def ready(self) -> bool:
        """True if there is a model, and every one that has versions answers."""
        served = [model for model in self.all() if not model.removed]
        return bool(served) and all(model.version is not None for model in served)

    def close(self, seconds: float) -> None:
        """Answer the requests that wait, for at most `seconds` each model, and stop."""
        self._stop.set()
        for served in self.all():
            served.close(seconds)


def _repeat(
    look: Callable[[], None],
    seconds: float,
    stop: threading.Event,
    name: str,
    say: Callable[[str], None],
) -> None:
    """Call `look` every so many seconds in a thread until `stop` is set; say once what is wrong."""

    def work() -> None:
        trouble = ""
        while not stop.is_set():
            try:
                look()
                trouble = ""
            except Exception as error:  # a folder that cannot be read now may be readable later
                if str(error) != trouble:
                    trouble = str(error)
                    say(f"{name}: could not be looked through: {error}")
            stop.wait(seconds)

    threading.Thread(target=work, daemon=True).start()


@dataclass
class VersionStatus:
    """State of a version: a name of TensorFlow Serving's `ModelVersionStatus.State`, and the error
    that stopped it."""

    state: str
    error: str = ""


class ServedModel:
    """The newest version of a model that can be loaded, and a queue in front of it.

    Args:
        folder: The model's folder, which holds a folder for each version; its name is the model's.
        limits, load, say: As of `Models`.

    Attributes:
        statuses: The state of each version that was there since the start.
        removed: True while the model has no version any more.
        looked: Set when the versions have been looked for once, and loaded.
    """

    def __init__(
        self, folder: Path, limits: Limits, load: Callable[..., Any], say: Callable[[str], None]
    ) -> None:
        self.name = folder.name
        self.queue = WorkQueue(self.name, limits.queue)
        newest = sorted(find_versions(folder))[-1:]
        self.statuses = {version: VersionStatus("START") for version in newest}
        self.removed = False
        self.looked = threading.Event()
        self._folder, self._limits, self._load, self._say = folder, limits, load, say
        self._current: Any = None
        self._broken: dict[int, tuple] = {}
        self._retired: dict[int, weakref.ref] = {}

    @property
    def version(self) -> int | None:
        """Number of the version that answers, or None."""
        current = self._current
        return None if current is None else current.version

    def get(self, version: int | None) -> Any:
        """Return the loaded version; it stays in memory as long as somebody holds it.

        Raises `Refusal` if another version is asked for, or none can answer yet or at all.
        """
        current = self._current  # another thread may replace it
        if current is not None and version in (None, current.version):
            return current
        asked = self.name if version is None else f"version {version} of the model {self.name}"
        if self.removed:
            raise Refusal(Reason.NOT_FOUND, f"The model {self.name} has no version any more.")
        if current is not None:
            raise Refusal(Reason.NOT_FOUND, f"{asked} is not served: version {current.version} is.")
        if any(status.state in ("START", "LOADING") for status in self.statuses.values()):
            raise Refusal(
                Reason.UNAVAILABLE, f"The model {self.name} is being loaded: try again soon."
            )
        errors = [f"version {v}: {s.error}" for v, s in self.statuses.items() if s.error]
        raise Refusal(
            Reason.NOT_FOUND,
            f"No version of the model {self.name} could be loaded ({'; '.join(errors) or 'none'}).",
        )

    def predict(
        self,
        loaded: Any,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        seconds: float,
        queued: Callable[[Future], Any] = lambda future: None,
    ) -> dict[str, np.ndarray]:
        """Return the outputs of a signature when the request's turn has come.

        Raises `Refusal` for inputs that do not fit, a full queue, and if the time is over.

        Args:
            loaded: A version from `get`.
            seconds: How long the request may wait and run.
            queued: Called with the task, so that the task can be cancelled.
        """
        loaded.check(signature, inputs)
        task = self.queue.put(lambda: loaded.run(signature, inputs))
        queued(task)
        outputs: dict[str, np.ndarray] = wait(task, seconds)
        return outputs

    def watch(self, seconds: float, stop: threading.Event) -> None:
        """Call `update` every so many seconds in a thread until `stop` is set."""

        def look() -> None:
            try:
                self.update()
            finally:
                self.looked.set()

        _repeat(look, seconds, stop, self.name, self._say)

    def update(self) -> None:
        """Load the newest version if another one answers so far, and swap the two.

        The old one answers until then. A version that cannot be loaded is passed over until one of
        its files changes. If no version is left, none answers.
        """
        self._forget_retired()
        folders = find_versions(self._folder)
        for version in set(self.statuses) - set(folders) - {self.version}:
            if self.statuses[version].state in ("START", "LOADING"):
                self.statuses[version] = VersionStatus("END")
        self.removed = not folders
        if not folders:
            if self._current is not None:
                self._say(f"{self.name}: has no version any more: nothing is served.")
                self._replace(None)
            return
        for version in sorted(folders, reverse=True):
            if version == self.version:
                return
            seen = _fingerprint(folders[version])
            if self._broken.get(version) == seen:
                continue
            self.statuses[version] = VersionStatus("LOADING")
            try:
                loaded = self._load(self.name, version, folders[version], self._limits)
            except Exception as error:  # a broken version must not end the others
                self._broken[version] = seen
                reason = _load_error(error)
                self.statuses[version] = VersionStatus("END", without_folders(reason))
                kept = "nothing is served"
                if self.version is not None:
                    kept = f"version {self.version} goes on"
                self._say(f"{self.name}: version {version} cannot be loaded, {kept}: {reason}")
                continue
            self._broken.pop(version, None)
            self._replace(loaded)
            self.statuses[version] = VersionStatus("AVAILABLE")
            self._say(f"{self.name}: version {version} answers.")
            return

    def close(self, seconds: float) -> None:
        """Answer the requests that wait, then nothing."""
        self.queue.stop(seconds)
        self._current = None

    def _replace(self, loaded: Any) -> None:
        old, self._current = self._current, loaded
        if old is not None:
            self.statuses[old.version] = VersionStatus("UNLOADING")
            self._retired[old.version] = weakref.ref(old)
            del old
            self._forget_retired()

    def _forget_retired(self) -> None:
        if not self._retired:
            return
        gc.collect()  # a loaded SavedModel refers to itself
        for version in [v for v, old in self._retired.items() if old() is None]:
            del self._retired[version]
            if version != self.version:
                self.statuses[version] = VersionStatus("END")
                self._say(f"{self.name}: version {version} is unloaded.")


def find_versions(folder: Path) -> dict[int, Path]:
    """Return the folder of each version in a model's folder; there is none if it is gone.

    Raises `OSError` if it cannot be looked into now, which says nothing about its versions.
    """
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    versions = {}
    for name in names:
        number = version_number(name)
        with suppress(PermissionError):
            if number is not None and (folder / name / "saved_model.pb").is_file():
                versions[number] = folder / name
    return versions


def _fingerprint(folder: Path) -> tuple:
    """Return names, sizes and times of all files; they change while a copy is going on."""
    result = []
    for path in sorted(folder.rglob("*")):
        with suppress(FileNotFoundError):
            stat = path.stat()
            result.append((str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns))
    return tuple(result)


def _load_error(error: Exception) -> str:
    if isinstance(error, Refusal):
        return f"its warm-up request was refused: {error.sentence}"
    lines = str(error).strip().splitlines() or ["no reason"]
    return f"{type(error).__name__}: {lines[0]}"


class WorkQueue:
    """Tasks of one model, done one after the other, as TensorFlow uses all cores for each.

    Args:
        name: Name of the model, for messages.
        size: Tasks that may wait.
    """

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size = name, size
        self._waiting: deque[tuple[Callable[[], Any], Future]] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name=f"work-{name}", daemon=True)
        self._thread.start()

    @property
    def length(self) -> int:
        """Number of tasks that wait."""
        return len(self._waiting)

    def place(self, future: Future) -> int:
        """Return the place of a task among those that wait, from 1 on; 0 if it does not wait."""
        waiting = [item[1] for item in tuple(self._waiting)]
        return waiting.index(future) + 1 if future in waiting else 0

    def put(self, task: Callable[[], Any]) -> Future:
        """Let `task` wait for its turn; `Future.cancel` takes it out again.

        Raises `Refusal` if the queue is full or the server is being stopped.
        """
        future: Future = Future()
        with self._changed:
            if self._stopped:
                raise Refusal(Reason.UNAVAILABLE, "The server is being stopped: try again later.")
            if len(self._waiting) >= self.size:
                raise Refusal(
                    Reason.UNAVAILABLE,
                    f"{self.size} requests of the model {self.name} wait already: try again later.",
                )
            self._waiting.append((task, future))
            self._changed.notify()
        future.add_done_callback(self._remove_cancelled)
        return future

    def stop(self, seconds: float) -> None:
        """Take no new task; finish those that run and wait, for at most `seconds`."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join(seconds)

    def _remove_cancelled(self, future: Future) -> None:
        # Its place in the queue and the memory of its volume are free again.
        if future.cancelled():
            with self._changed:
                self._waiting = deque(item for item in self._waiting if item[1] is not future)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopped)
                if not self._waiting:
                    return
                task, future = self._waiting.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(task())
                except BaseException as error:
                    future.set_exception(error)
            # Otherwise the volume of this request would stay until the next one comes.
            del task, future


def wait(future: Future, seconds: float) -> Any:
    """Return the result of a task.

    Raises `Refusal` after `seconds`. A task that runs by then cannot be stopped; one that waits is
    taken out of the queue.
    """
    try:
        return future.result(max(seconds, 0))
    except FutureTimeoutError:  # before Python 3.11 it is not the built-in TimeoutError
        if future.done():
            raise
        future.cancel()
        raise Refusal(
            Reason.TOO_LATE, "The time for this request was over before it was answered."
        ) from None
