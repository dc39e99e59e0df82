"""`history.csv`: a row per epoch, right after a resume too."""

import csv
from pathlib import Path
from typing import Any

import keras
from keras import ops

from kerasseg.write_aside import write_aside


class History(keras.callbacks.Callback):
    """Adds the learning rate to the logs and rewrites `path` after each epoch.

    Rows of epochs that a resumed run repeats are replaced. Epochs count from 1. What only some
    epochs have is empty in the others.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.rows: list[dict[str, Any]] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is None:
            return
        logs["learning_rate"] = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
        if not self.rows and self.path.exists():
            self.rows = [row for row in read_history(self.path) if int(row["epoch"]) <= epoch]
        self.rows.append({"epoch": epoch + 1, **{k: f"{float(v):.8g}" for k, v in logs.items()}})
        with (
            write_aside(self.path, "run.root") as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            columns = dict.fromkeys(name for row in self.rows for name in row)
            writer = csv.DictWriter(file, list(columns), restval="")
            writer.writeheader()
            writer.writerows(self.rows)


def read_history(path: Path) -> list[dict[str, str]]:
    """Rows of a `history.csv`, oldest first."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
