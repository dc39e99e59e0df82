"""`ServedModel`: the versions of one model, of which one answers."""

import gc
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasseg.serving.server.limits import Limits
from kerasseg.serving.server.refusal import Reason, Refusal
from kerasseg.serving.server.version_folders import fingerprint
from kerasseg.serving.server.work_queue import WorkQueue


@dataclass
class VersionStatus:
    """state: a name of TensorFlow Serving's ModelVersionStatus.State. error: why it failed."""

    state: str
    error: str = ""


class ServedModel:
    """The newest version that can be loaded, and a queue in front of it.

    load: (name, version, folder, limits) -> a loaded and warmed version
    say:  takes a line for whoever watches the server
    """

    def __init__(
        self, name: str, limits: Limits, load: Callable[..., Any], say: Callable[[str], None]
    ) -> None:
        self.name = name
        self.work = WorkQueue(name, limits.queue)
        self.statuses: dict[int, VersionStatus] = {}
        self._limits, self._load, self._say = limits, load, say
        self._current: Any = None
        self._lock = threading.Lock()
        self._broken: dict[int, tuple] = {}
        self._retired: dict[int, weakref.ref] = {}

    @property
    def version(self) -> int | None:
        """The one that answers."""
        current = self._current
        return None if current is None else current.version

    def get(self, version: int | None) -> Any:
        """The loaded version; whoever holds it keeps it in memory.

        Raises `Refusal` if another version is asked for, or none can answer yet or at all.
        """
        with self._lock:
            current = self._current
        if current is not None and version in (None, current.version):
            return current
        asked = f"version {version} of the model {self.name}" if version else self.name
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

    def update(self, folders: dict[int, Path]) -> None:
        """Load the newest version there is, if another one answers so far, and swap the two.

        The old one answers until then. A version that cannot be loaded is passed over until one of
        its files changes.
        """
        self._forget_retired()
        for version in sorted(folders, reverse=True):
            if version == self.version:
                return
            seen = fingerprint(folders[version])
            if self._broken.get(version) == seen:
                continue
            self.statuses[version] = VersionStatus("LOADING")
            try:
                loaded = self._load(self.name, version, folders[version], self._limits)
            except Exception as error:  # a broken version must not end the others
                self._broken[version] = seen
                reason = _words(error)
                self.statuses[version] = VersionStatus("END", reason)
                kept = f"version {self.version} goes on" if self.version else "nothing is served"
                self._say(f"{self.name}: version {version} cannot be loaded, {kept}: {reason}")
                continue
            self._swap(loaded)
            return

    def close(self, seconds: float) -> None:
        """Answer what waits, then nothing."""
        self.work.stop(seconds)
        with self._lock:
            self._current = None

    def _swap(self, loaded: Any) -> None:
        self._broken.pop(loaded.version, None)
        with self._lock:
            old, self._current = self._current, loaded
        self.statuses[loaded.version] = VersionStatus("AVAILABLE")
        self._say(f"{self.name}: version {loaded.version} answers.")
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


def _words(error: Exception) -> str:
    if isinstance(error, Refusal):
        return f"its warm-up request was refused: {error.sentence}"
    lines = str(error).strip().splitlines() or ["no reason"]
    return f"{type(error).__name__}: {lines[0]}"
