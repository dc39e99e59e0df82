"""`Models`: everything below the folder of models, kept up to date."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kerasseg.serving.server.limits import Limits
from kerasseg.serving.server.refusal import Reason, Refusal
from kerasseg.serving.server.served_model import ServedModel
from kerasseg.serving.server.version_folders import version_folders


class Models:
    """The models of a folder by name; a thread looks for new versions.

    load: as in `ServedModel`
    say:  takes a line for whoever watches the server
    """

    def __init__(
        self, root: Path, limits: Limits, load: Callable[..., Any], say: Callable[[str], None]
    ) -> None:
        self.limits = limits
        self._root, self._load, self._say = root, load, say
        self._served: dict[str, ServedModel] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def update(self) -> None:
        """Load what is new."""
        folders = version_folders(self._root)
        for name in sorted(folders):
            if name not in self._served:
                served = ServedModel(name, self.limits, self._load, self._say)
                self._served = {**self._served, name: served}
        for name, versions in sorted(folders.items()):
            self._served[name].update(versions)

    def watch(self, seconds: float) -> None:
        """`update` every so many seconds, in a thread, until `close`."""
        self._thread = threading.Thread(target=self._watch, args=(seconds,), daemon=True)
        self._thread.start()

    def model(self, name: str) -> ServedModel:
        """Raises `Refusal` for a name that is not there."""
        served = self._served
        if name not in served:
            there = ", ".join(sorted(served)) or "none yet"
            raise Refusal(Reason.NOT_FOUND, f"There is no model {name!r}; there is {there}.")
        return served[name]

    def all(self) -> list[ServedModel]:
        """By name."""
        return [served for _, served in sorted(self._served.items())]

    @property
    def ready(self) -> bool:
        """Whether there is a model, and every one of them answers."""
        served = self.all()
        return bool(served) and all(model.version is not None for model in served)

    def close(self, seconds: float) -> None:
        """Answer what waits, for at most `seconds` each, and stop."""
        self._stop.set()
        for served in self.all():
            served.close(seconds)

    def _watch(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            try:
                self.update()
            except Exception as error:  # a folder that cannot be read now may be readable later
                self._say(f"{self._root}: could not be looked through: {error}")
