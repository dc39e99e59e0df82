"""The state to resume from, after each epoch."""

from pathlib import Path
from typing import Any

import keras

from kerasseg.training.state import Progress, save_state


class SaveState(keras.callbacks.Callback):
    """Writes the state of the run to `path`; the last callback, as the others change it."""

    def __init__(self, path: Path, progress: Progress) -> None:
        super().__init__()
        self.path = path
        self.progress = progress

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        save_state(self.path, self.model, self.progress)
