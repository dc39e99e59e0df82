"""The cases of a run's own store: to choose ranges on, and to measure Dice on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerasseg.errors import UserError
from kerasseg.evaluation.evaluate import evaluate
from kerasseg.evaluation.finished_run import FinishedRun, read_finished_run
from kerasseg.evaluation.scores import mean_scores
from kerasseg.inference.predictor import Predictor
from kerasseg.pipeline.batches import validation_batches
from kerasseg.records.manifest import read_manifest
from kerasseg.records.store import RecordStore

_CALIBRATION_CASES = 16
"""Of the training side, `pipeline.validation_patches_per_volume` patches of each."""


@dataclass(frozen=True)
class RunCases:
    """A finished run and its open store."""

    run: FinishedRun
    store: RecordStore

    def calibration(self) -> list[np.ndarray]:
        """Patches (1, …, C) float32 of cases of the training side, the same each time.

        Raises `UserError` where that side is empty.
        """
        experiment = self.run.experiment
        ids = self._readable("train")
        step = max(1, len(ids) // _CALIBRATION_CASES)
        batches = validation_batches(
            self.store,
            ids[::step][:_CALIBRATION_CASES],
            experiment.pipeline,
            target=experiment.model.target,
            batch_size=1,
            seed=experiment.run.seed,
        )
        return [image.numpy().astype(np.float32) for image, *_ in batches]

    def mean_dice(self, predictor: Predictor) -> tuple[float, int]:
        """Mean Dice of the validation cases over all regions, and how many cases there are."""
        target = self.run.experiment.model.target
        ids = self._readable("validation")
        cases = {"validation": ids}
        scores = evaluate(predictor, self.store, cases, target, Path(), overlays=0)
        means = mean_scores(scores)
        return means.get("mean", next(iter(means.values()))), len(ids)

    def _readable(self, split: str) -> list[str]:
        ids = self.run.case_ids(split)
        if self.run.experiment.records.on_damaged_record == "stop":
            return ids
        damaged = self.store.damaged_records(ids)
        return [case_id for case_id in ids if case_id not in damaged]


def open_run_cases(folder: Path) -> RunCases:
    """Open the store of the run in `folder`, but convert nothing.

    Raises `UserError` for a run that is not finished, and where its store is not there.
    """
    run = read_finished_run(folder)
    root = run.experiment.store_root
    if read_manifest(root) is None:
        raise UserError(f"{folder}: its store {root} is not here.")
    return RunCases(run, run.open_store())
