"""Python's own entrance: a whole run, its evaluation and its predictions, and batches of a store.

`import kerasseg` offers these functions beside `kerasseg.load` (docs/notebook.md).
"""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tensorflow as tf

from kerasseg.config.experiment import Experiment
from kerasseg.config.load import load_experiment, make_experiment
from kerasseg.evaluation.evaluate_runs import evaluate_run
from kerasseg.evaluation.results import Results
from kerasseg.pipeline.sampling import check_store
from kerasseg.prediction.predict import Arguments
from kerasseg.prediction.predict import predict as predict_scans
from kerasseg.prediction.predict_files import Outcome, OutputOptions
from kerasseg.records import store as records
from kerasseg.records.splits import Split, open_split
from kerasseg.records.store import RecordStore
from kerasseg.run import read_evaluated
from kerasseg.run_experiment import run_experiment
from kerasseg.training.fit import build_batches

Config = Experiment | Mapping[str, Any] | Path | str
"""A config file, its sections as a dict, or an experiment that was read already."""


def train(config: Config, overrides: Sequence[str] = (), *, resume: bool = False) -> Path | None:
    """Train one network: convert the scans where needed, fit, evaluate, write a report.

    It is `kerasseg train` in this process. Keras's random seed and dtype policy are set for it.

    Args:
        config: A config file, or its sections as a dict.
        overrides: Settings that replace those of the config, such as "training.epochs=2".
        resume: Go on with the newest run of this name.

    Returns:
        The run folder, which `evaluate`, `predict` and `load` take. On a machine that is not the
        chief of several it is None.

    Raises:
        UserError: For anything that the user can mend.

    Examples:
        >>> run = kerasseg.train("configs/phantom_3d.yaml", ["training.epochs=2"])
    """
    return run_experiment(_read(config, overrides), resume=resume)


def evaluate(run: Path | str, *, split: str = "test", overrides: Sequence[str] = ()) -> Results:
    """Segment the whole scans of one side of a run's split and score them.

    The verb `kerasseg evaluate` also writes tables, figures and a page.

    Args:
        run: The run folder.
        split: The side: train, validation or test.
        overrides: Settings of evaluation, postprocessing or metrics that differ from those of
            the run, such as "evaluation.flips=[width]".

    Returns:
        The scores: `results.means()["WT"]["dice"]` has the mean over the cases of a class and a
        metric with its interval, `results.scores` the scores of each case.

    Raises:
        UserError: The run cannot be evaluated.

    Examples:
        >>> kerasseg.evaluate(run).means()["mean"]["dice"].mean
    """
    results, _ = evaluate_run(read_evaluated(Path(run), overrides), split)
    return results


def predict(
    runs: Path | str | Sequence[Path | str],
    scans: Path | str | Sequence[Path | str],
    output: Path | str,
    *,
    overrides: Sequence[str] = (),
    combine: Literal["mean", "vote"] = "mean",
    layout: str | None = None,
    overlays: int = 0,
    options: OutputOptions = OutputOptions(),  # noqa: B008 (frozen)
) -> Outcome:
    """Segment every scan in files and folders, and write the label maps into a folder.

    It is `kerasseg predict` in this process; `kerasseg.load` gives arrays instead of files.

    Args:
        runs: One or several run folders; several are an ensemble.
        scans: Folders or files of scans, or a list of them.
        output: The folder of the predictions.
        overrides: Settings of evaluation and postprocessing that differ from those of the runs.
        combine: Whether several runs' probabilities are averaged, or their masks vote.
        layout: Layout of the scans, if it is not recognised.
        overlays: How many cases are drawn.
        options: What is written of every case besides its label map.

    Returns:
        The ids of the cases that were written, skipped, and failed with the reason.

    Raises:
        UserError: A run cannot be loaded, or there is no scan.

    Examples:
        >>> kerasseg.predict(run, "new_scans", "predictions").written
    """
    arguments = Arguments(_paths(runs), _paths(scans), tuple(overrides))
    return predict_scans(
        arguments, Path(output), combine=combine, layout=layout, overlays=overlays, options=options
    )


@dataclass(frozen=True)
class Store:
    """A converted data set as batches for a loop of your own.

    Images are (B, D, H, W, C) float32 z-scores, masks (B, D, H, W, K) uint8, both without D where
    `model.dimensions` is 2; K are the channels of `model.target`.

    Attributes:
        experiment: The settings; sections `pipeline`, `augment` and `training` shape the batches.
        records: The cases as they are stored: `records.load(case_id)`.
        split: The ids of the cases to train, validate and test on.
    """

    experiment: Experiment
    records: RecordStore
    split: Split

    @property
    def steps_per_epoch(self) -> int:
        """Training batches in an epoch."""
        return self._batches()[0].steps_per_epoch

    def training(self, first_epoch: int = 0) -> tf.data.Dataset:
        """Return the endless training batches, shuffled, cut and augmented as the config says."""
        return self._batches()[0].dataset(first_epoch).map(_as_float32)

    def validation(self) -> tf.data.Dataset:
        """Return the validation batches, the same ones each time; the last may be smaller."""
        return self._batches()[1].map(_without_filling)

    def _batches(self) -> Any:
        return build_batches(self.experiment, self.records, self.split)


def open_store(config: Config, overrides: Sequence[str] = ()) -> Store:
    """Open the converted data set of a config, converting the scans first if there is none.

    Args:
        config: A config file, or its sections as a dict.
        overrides: Settings that replace those of the config.

    Returns:
        The store, whose `training()` and `validation()` are `tf.data` batches.

    Raises:
        UserError: The scans cannot be converted, or the store was made with other settings.

    Examples:
        >>> store = kerasseg.open_store("configs/phantom_3d.yaml")
        >>> network.fit(store.training(), steps_per_epoch=store.steps_per_epoch)
    """
    experiment = _read(config, overrides)
    store = records.open_store(experiment)
    split = open_split(store, experiment.split)
    check_store(experiment, store, split.train)
    return Store(experiment, store, split)


def _read(config: Config, overrides: Sequence[str]) -> Experiment:
    if isinstance(config, Path | str):
        return load_experiment(config, overrides)
    if isinstance(config, Experiment):
        return make_experiment(json.loads(config.model_dump_json()), overrides, "config")
    return make_experiment(copy.deepcopy(dict(config)), overrides, "config")


def _paths(given: Path | str | Sequence[Path | str]) -> tuple[Path, ...]:
    return (Path(given),) if isinstance(given, Path | str) else tuple(map(Path, given))


def _as_float32(image: tf.Tensor, masks: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.cast(image, tf.float32), masks


def _without_filling(
    image: tf.Tensor, masks: tf.Tensor, weight: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Drop the zeros that fill up the last batch, where `weight` is 0."""
    return _as_float32(tf.boolean_mask(image, weight > 0), tf.boolean_mask(masks, weight > 0))
