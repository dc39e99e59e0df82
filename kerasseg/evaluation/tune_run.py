"""`kerasseg evaluate RUN --tune-postprocessing`."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerasseg.config.evaluation import PostprocessingSettings
from kerasseg.inference.predictor import Predictor
from kerasseg.inference.tune_postprocessing import (
    TuningCase,
    mean_dice,
    tune_postprocessing,
)
from kerasseg.progress import track
from kerasseg.run import read_run, write_postprocessing


@dataclass(frozen=True)
class Tuned:
    """What was chosen, the file it stands in, and the mean Dice of the validation cases without
    any post-processing and with it."""

    settings: PostprocessingSettings
    path: Path
    before: float
    after: float


def tune_run(folder: Path) -> Tuned:
    """Choose the post-processing of a run on its validation cases, and keep it in its folder.

    `kerasseg predict` and `kerasseg evaluate` use it from then on. Raises `UserError` for a folder
    that cannot be evaluated.
    """
    run = read_run(folder)
    experiment, case_ids = run.experiment, run.case_ids("validation")
    store = run.open_store()
    target, threshold = experiment.model.target, experiment.evaluation.threshold
    network = run.load_network()
    predictor = Predictor(network, experiment.pipeline, experiment.evaluation, target=target)
    with tempfile.TemporaryDirectory(prefix="kerasseg-tune-") as place:
        paths = []
        words = f"Segmenting {len(case_ids)} validation case(s)"
        for number, case_id in enumerate(track(case_ids, len(case_ids), words)):
            case = store.load(case_id).case
            assert case.label is not None  # a store holds labelled cases only
            paths.append(Path(place) / f"{number}.npz")
            probabilities = predictor.probabilities(case.image)
            np.savez(paths[-1], probabilities=probabilities, label=case.label, size=case.spacing)
        cases = _OnDisk(paths)
        settings = tune_postprocessing(cases, target, threshold)
        before, after = (
            mean_dice(cases, target, threshold, chosen)
            for chosen in (PostprocessingSettings(), settings)
        )
    return Tuned(settings, write_postprocessing(folder, settings), before, after)


class _OnDisk(Sequence[TuningCase]):
    """Cases that are read each time they are asked for, as they may not fit into memory."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: Any) -> Any:
        with np.load(self._paths[index]) as stored:
            spacing = tuple(float(s) for s in stored["size"])
            return TuningCase(stored["probabilities"], stored["label"], spacing)
