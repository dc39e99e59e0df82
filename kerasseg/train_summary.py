"""The lines that a training run prints about itself, and the `summary.json` that it keeps."""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from kerasseg import anatomy
from kerasseg.config.experiment import Experiment
from kerasseg.config.load import flat_settings
from kerasseg.config.training import TrainingSettings
from kerasseg.datasets.checks import format_notes, group_notes, lone_class
from kerasseg.datasets.discovery import knows_patients, unclear_patients
from kerasseg.evaluation.report import describe_scores, evaluation_summary
from kerasseg.evaluation.results import Results
from kerasseg.records.splits import Split
from kerasseg.records.store import RecordStore
from kerasseg.tensorflow_setup import peak_memory
from kerasseg.training.callbacks import taken_by_one_class
from kerasseg.training.devices import Devices, device_name
from kerasseg.training.optimizers import warmup_epochs
from kerasseg.training.state import Progress
from kerasseg.training.tensorboard import HPARAMS_SUFFIX, write_hparams


def print_start(
    say: Any,
    experiment: Experiment,
    store: RecordStore,
    split: Split,
    damaged: dict[str, str],
    network: keras.Model,
    folder: Path,
    precision: str,
    devices: Devices,
) -> None:
    """Print what is trained on what, before the first epoch."""
    say(f"Store      {store.root}: {len(store.rows)} cases, {store.manifest.data_fingerprint}")
    if skipped := store.manifest.skipped:
        say(
            f"Skipped    {len(skipped)} case(s) of the data set, the first: {skipped[0].reason}",
            style="bold yellow",
        )
    for message in damaged.values():
        say(f"Damaged    left out: {message}", style="bold yellow")
    if split.overfit_check:
        why = "split.overfit_check" if experiment.split.overfit_check else "only one patient"
        say(
            f"Split      OVER-FIT CHECK ({why}): the same {len(split.train)} case(s) "
            "train and validate; the scores say nothing about other patients.",
            style="bold yellow",
        )
    else:
        say(
            f"Split      {len(split.train)} training, {len(split.validation)} validation, "
            f"{len(split.test)} test cases, by "
            f"{'patient' if knows_patients(experiment.data) else 'picture'}"
        )
    notes = group_notes((row.case_id, row.notes) for row in store.rows.values())
    for warning in [*warnings_about_scores(experiment, store), *format_notes(notes)]:
        say(f"Warning    {warning}", style="bold yellow")
    for heading, text in _describe_task(experiment).items():
        say(f"{heading:<11}{text}")
    say(f"Network    {network.name}, {network.count_params():,} parameters")
    say(f"Device     {device_name()}")
    batch = experiment.training.batch_size
    parts = f", {batch // devices.replicas} on each device" if devices.replicas > 1 else ""
    say(f"Strategy   {devices.description}; batches of {batch}{parts}")
    say(f"Precision  {precision}")
    warmup = warmup_epochs(experiment.optimizer, experiment.training.epochs)
    if warmup < experiment.optimizer.warmup_epochs:
        shortened = f"shortened to {warmup} epoch(s), half of training.epochs"
        say(f"Schedule   {f'warm-up {shortened}' if warmup else 'no warm-up: too few epochs'}")
    say(f"Run        {folder} (watch: tensorboard --logdir {folder}/tensorboard)")


def end_of_fit(
    training: TrainingSettings, progress: Progress, last_epoch: int | None = None
) -> str | None:
    """Return the line that says why a fit ended before `last_epoch` or the last of its epochs.

    It is None where the fit did not end before.
    """
    if progress.epochs >= min(last_epoch or training.epochs, training.epochs):
        return None
    reached = f"Stopped    after epoch {progress.epochs} of {training.epochs}: "
    if not progress.stopped_early:
        return reached + "a callback asked for it."
    return (
        f"{reached}the smoothed validation Dice was not better than {progress.best_score:.4f}, "
        f"that of epoch {progress.best_epoch}, for {training.early_stopping_patience} epoch(s) "
        "(training.early_stopping_patience)."
    )


def summarise_run(
    experiment: Experiment,
    store: RecordStore,
    split: Split,
    damaged: dict[str, str],
    network: keras.Model,
    progress: Progress,
    history: Sequence[Mapping[str, str]],
    results: Mapping[str, Results],
    policy: str,
) -> dict[str, Any]:
    """Return the contents of `summary.json`, except what the run took.

    Without `results` the run was not evaluated.
    """
    return {
        **evaluation_summary(results),
        "run": experiment.run_name,
        "task": "; ".join(_describe_task(experiment).values()),
        "overfit_check": split.overfit_check,
        "warnings": [
            *experiment.warnings,
            *warnings_about_scores(experiment, store),
            *taken_by_one_class(history).values(),
        ],
        "skipped_cases": {case.case_id: case.reason for case in store.manifest.skipped},
        "damaged_records": damaged,
        "case_kind": "picture" if experiment.data.facts.single_pictures else "volume",
        "best_epoch": progress.best_epoch,
        "best_validation_patch_dice": round(progress.best_score, 6) if progress.epochs else None,
        "epochs": progress.epochs,
        "epochs_planned": experiment.training.epochs,
        "stopped_early": progress.stopped_early,
        "parameters": network.count_params(),
        "trained_parameters": sum(math.prod(v.shape) for v in network.trainable_variables)
        * bool(progress.epochs),
        "precision": policy,
        "device": device_name(),
        "cases": {
            "train": len(split.train),
            "validation": len(split.validation),
            "test": len(split.test),
        },
        "store": str(store.root),
        "settings_fingerprint": store.manifest.fingerprint,
        "data_fingerprint": store.manifest.data_fingerprint,
    }


_SEARCHED = ("pipeline", "augment", "model", "loss", "optimizer", "training")
"""The sections whose settings are compared on TensorBoard's HParams page."""


def log_settings(folder: Path, experiment: Experiment, summary: Mapping[str, Any]) -> None:
    """Write a run's settings and scores for the HParams page of TensorBoard over all runs."""
    for earlier in folder.glob(f"*{HPARAMS_SUFFIX}"):  # of a run that is evaluated once more
        earlier.unlink()
    scores = {
        f"{side}_dice/{name}": value
        for side, means in summary["dice"].items()
        for name, value in means.items()
        if value is not None
    }
    settings = flat_settings(experiment, _SEARCHED)
    write_hparams(folder, settings, scores, folder.parent.name)  # runs may have one name


def elapsed_and_peak_memory(started: float) -> dict[str, float]:
    """Return the minutes since `started` (of `time.monotonic`) and the peak memory in GiB."""
    minutes, peak = (time.monotonic() - started) / 60, peak_memory() / 2**30
    return {"minutes": round(minutes, 2), "peak_memory_gib": round(peak, 2)}


def print_result(say: Any, summary: dict[str, Any], report: Path) -> None:
    """Print the Dice of the whole volumes and where the report is."""
    for line in describe_scores(summary):
        say(line)
    if summary["overfit_check"]:
        say("Over-fit check: these volumes were trained on.", style="bold yellow")
    say(f"Done in {summary['minutes']:.1f} minutes. Look at {report}")


def _describe_task(experiment: Experiment) -> dict[str, str]:
    """Return headings and sentences that say what goes into the network and what comes out."""
    target = experiment.model.target
    patch = " x ".join(map(str, experiment.pipeline.patch_size))
    modalities = ", ".join(experiment.data.modalities)
    ends = f"of {patch} voxels: {modalities} -> {', '.join(anatomy.TARGETS[target])} ({target})"
    if experiment.model.dimensions == 3:
        return {"Task": f"3-D patches {ends}"}
    slices = experiment.pipeline.slices
    kept = {"all": "all", "brain": "those with brain", "tumour": "those with tumour"}
    training_slices = f"{kept[slices.keep]} train"
    if slices.empty_share is not None:
        training_slices += f", {slices.empty_share:.0%} of them without tumour"
    if slices.neighbours:
        training_slices += f", with {slices.neighbours} neighbour(s) on each side as channels"
    return {"Task": f"2-D {slices.axis} slices {ends}", "Slices": training_slices}


def warnings_about_scores(experiment: Experiment, store: RecordStore) -> list[str]:
    """Return sentences that a reader of the scores must know."""
    warnings = []
    if not knows_patients(experiment.data):
        warnings.append(
            "The pictures have no patient ids, so neighbouring slices of one patient may stand on "
            "both sides of the split and the scores may be too high: set data.patient_pattern or "
            "data.patient_csv."
        )
    elif experiment.data.patient_pattern is None and experiment.data.patient_csv is None:
        unclear = unclear_patients({row.case_id: row.patient_id for row in store.rows.values()})
        warnings += [f"{unclear}."] if unclear else []
    if lone := lone_class(row.voxels for row in store.rows.values()):
        warnings.append(lone)
    if not experiment.data.facts.knows_spacing:
        warnings.append(
            "The files do not tell the size of a pixel or the distance of slices: each counts as "
            "1 mm in the original files, so distances in mm and volumes in mL are not real ones."
        )
    spacings = sorted({tuple(round(s, 2) for s in row.spacing) for row in store.rows.values()})
    if experiment.data.facts.knows_spacing and len(spacings) > 1:
        sizes = (" x ".join(f"{s:g}" for s in spacing) for spacing in (spacings[0], spacings[-1]))
        warnings.append(
            f"The cases have {len(spacings)} voxel sizes, from {' to '.join(sizes)} mm (depth x "
            "height x width), which a network cannot tell apart: bring them to one with "
            "data.spacing."
        )
    return warnings
