"""A run folder, read back to be evaluated."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasseg.config import Experiment
from kerasseg.config_file import load_experiment
from kerasseg.errors import UserError
from kerasseg.inference.tuned_postprocessing import with_tuned
from kerasseg.records.store import RecordStore, open_store

SPLITS = ("validation", "test", "train")


@dataclass(frozen=True)
class FinishedRun:
    """What a run folder says: summary is empty for a run that was stopped before its end."""

    folder: Path
    experiment: Experiment
    checkpoint: Path
    split: dict[str, Any]
    environment: dict[str, Any]
    summary: dict[str, Any]

    def case_ids(self, split: str) -> list[str]:
        """Raises `UserError` where the split holds none."""
        ids = list(self.split[split])
        if not ids:
            others = ", ".join(f"{name} ({len(self.split[name])})" for name in SPLITS)
            raise UserError(
                f"{self.folder}: the split holds no {split} case; there are {others}: name one "
                "with --split."
            )
        return ids

    def open_store(self) -> RecordStore:
        """The run's store. Raises `UserError` if it holds other data than the run was made on."""
        store = open_store(self.experiment)
        before, now = self.environment.get("data_fingerprint"), store.manifest.data_fingerprint
        if before != now:
            raise UserError(
                f"{self.folder}: was made on a store with data fingerprint {before}, but that of "
                f"{store.root} is {now}: the scans were converted anew from other files, so that "
                "its split may not hold any more."
            )
        return store


def read_finished_run(folder: Path) -> FinishedRun:
    """Raises `UserError` for a folder that is no run, or one without a checkpoint."""
    if not (folder / "config.yaml").is_file():
        raise UserError(
            f"{folder}: is no run folder, as it holds no config.yaml: name one that kerasseg train "
            "has written, such as runs/NAME."
        )
    checkpoint = folder / "checkpoints" / "best.keras"
    if not checkpoint.is_file():
        raise UserError(
            f"{folder}: holds no checkpoint ({checkpoint.relative_to(folder)}), so there is "
            "nothing to evaluate: train it first, or go on with kerasseg train --resume."
        )
    return FinishedRun(
        folder,
        with_tuned(folder, load_experiment(folder / "config.yaml")),
        checkpoint,
        _read(folder / "split.json"),
        _read(folder / "environment.json"),
        _read(folder / "summary.json") if (folder / "summary.json").is_file() else {},
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"{path}: is missing, so the run cannot be evaluated.") from None
    except ValueError as error:
        raise UserError(f"{path}: is no JSON ({error}): restore the file.") from None
