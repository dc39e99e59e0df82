"""The runs that the page offers, and the choices that one makes for a prediction."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from kerasseg import anatomy
from kerasseg.app.prompts import Prompter, takes_prompts
from kerasseg.config.evaluation import EvaluationSettings, PostprocessingSettings
from kerasseg.config.experiment import Experiment
from kerasseg.run import needed_modalities, read_run
from kerasseg.serving.server.limits import Reason, Refusal, bad_input

if TYPE_CHECKING:
    from kerasseg.inference.predictor import Predictor
    from kerasseg.prediction.model import LoadedRun, Model

_KEPT = 4
"""Predictors with other settings that stay in memory; each has a graph of its own."""


class Choices(BaseModel):
    """The choices of a visitor for one prediction.

    Attributes:
        mirror: Whether windows are mirrored, too: as the run says, not at all, or left and right.
        threshold: The probability from which a voxel counts; None as the run says.
        postprocessing: Whether masks are cleaned up as the run says.
        uncertainty: Whether the entropy is measured.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mirror: Literal["run", "none", "sides"] = "run"
    threshold: float | None = Field(None, gt=0, lt=1)
    postprocessing: bool = True
    uncertainty: bool = False


@dataclass(frozen=True)
class OfferedRun:
    """A run folder whose config was read; its network is loaded later.

    Attributes:
        name: The folder's own name, which visitors see. Its path they do not.
    """

    name: str
    folder: Path
    experiment: Experiment

    def describe(self, number: int) -> dict[str, Any]:
        """Return what the page shows of the run."""
        model = self.experiment.model
        channels = anatomy.tumour_channels(model.target)
        return {
            "id": number,
            "name": self.name,
            "network": f"{model.dimensions}-D {model.network}",
            "target": model.target,
            "modalities": list(needed_modalities([self.experiment])),
            "channels": list(channels),
            "softmax": anatomy.ACTIVATIONS[model.target] == "softmax",
            "prompts": takes_prompts(self.experiment),
        }


class Runs:
    """The offered runs and their networks, which the queue's thread alone loads and uses."""

    def __init__(self, folders: Sequence[Path]) -> None:
        runs = [read_run(folder) for folder in folders]
        names = [run.folder.resolve().name for run in runs]
        unique = [f"{n} ({i + 1})" if names.count(n) > 1 else n for i, n in enumerate(names)]
        self.offered = tuple(
            OfferedRun(name, run.folder, run.experiment)
            for name, run in zip(unique, runs, strict=True)
        )
        self.state = "waiting"
        self.model = functools.lru_cache(maxsize=_KEPT)(self._model)
        self._load = functools.cache(self._load_run)
        self.prompter = functools.cache(lambda number: Prompter(self._load(number)))

    def run(self, number: int) -> OfferedRun:
        """Return the run of that number, or raise `Refusal`."""
        if not 0 <= number < len(self.offered):
            raise Refusal(Reason.NOT_FOUND, f"There is no model number {number}.")
        return self.offered[number]

    def check(self, number: int, choices: Choices) -> None:
        """Raise `Refusal` for a choice that has no effect on the run."""
        target = self.run(number).experiment.model.target
        if choices.threshold is not None and anatomy.ACTIVATIONS[target] == "softmax":
            raise bad_input(
                "This model takes the most probable class, so a threshold has no effect on it: "
                "leave it as it is."
            )

    def load_all(self) -> None:
        """Start TensorFlow, load every network and trace it: the first visitor need not wait."""
        from kerasseg.tensorflow_setup import start_tensorflow

        self.state = "loading"
        try:
            start_tensorflow()
            for number in range(len(self.offered)):
                _trace(self.model(number, Choices()).runs[0].predictor)
        except Exception:
            self.state = "failed"
            raise
        self.state = "ready"

    def _load_run(self, number: int) -> "LoadedRun":
        from kerasseg.prediction.model import load_run

        run = self.offered[number]
        # On the page it is the visitor who points, and who does not gets the whole slice's answer.
        asked = run.experiment.model.sam.prompt_of_truth
        return load_run(run.folder, ["model.sam.prompt=none"] if asked else [])

    def _model(self, number: int, choices: Choices) -> "Model":
        from kerasseg.inference.predictor import build_predictor
        from kerasseg.prediction.model import Model

        run = self._load(number)
        # Uncertainty changes what is asked of the model, not the model.
        if choices.model_copy(update={"uncertainty": False}) == Choices():
            return Model([run])
        experiment = _with_choices(run.experiment, choices)
        predictor = build_predictor(experiment, run.predictor.network)
        return Model([dataclasses.replace(run, experiment=experiment, predictor=predictor)])


def _trace(predictor: "Predictor") -> None:
    """Predict a window of noise, so that TensorFlow makes its graph."""
    if predictor.box_run is not None:
        _trace(predictor.box_run[1])
    widths = [tensor.shape[-1] for tensor in predictor.network.inputs]  # of a prompt's mask, too
    channels = sum(widths) // (2 * predictor.context + 1)
    shape = (*predictor.window, channels)
    noise = np.random.default_rng(0).random(shape, np.float32)
    predictor.probabilities(np.moveaxis(noise, 0, predictor.slice_axis or 0))


def _with_choices(experiment: Experiment, choices: Choices) -> Experiment:
    changes: dict[str, Any] = {}
    if choices.mirror != "run":
        # The left and the right side look alike in every network but one of sagittal slices.
        sliced = experiment.model.dimensions == 2 and experiment.pipeline.slices.axis
        side = "height" if sliced == "sagittal" else "width"
        changes = {"flips": (side,) if choices.mirror == "sides" else (), "rotations": ()}
    if choices.threshold is not None:
        changes["threshold"] = choices.threshold
    evaluation: EvaluationSettings = experiment.evaluation.model_copy(update=changes)
    clean = experiment.postprocessing
    if choices.threshold is not None:
        clean = clean.model_copy(update={"thresholds": {}})
    if not choices.postprocessing:
        clean = PostprocessingSettings(thresholds=clean.thresholds)
    return experiment.model_copy(update={"evaluation": evaluation, "postprocessing": clean})
