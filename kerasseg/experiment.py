"""The main job: an experiment in, a run folder out."""

import resource
import sys
import time
from pathlib import Path
from typing import Any

import keras
from rich.console import Console

from kerasseg import anatomy
from kerasseg.config import Experiment
from kerasseg.datasets.discovery import knows_patients
from kerasseg.evaluation.evaluate import evaluate
from kerasseg.evaluation.figures.training_curves import draw_training_curves
from kerasseg.evaluation.report import write_report
from kerasseg.evaluation.scores import CaseScore, mean_scores, write_metrics
from kerasseg.inference.predictor import Predictor
from kerasseg.models import build as models
from kerasseg.models.init_from import load_initial_weights
from kerasseg.records.split import Split, open_split
from kerasseg.records.store import RecordStore, open_store
from kerasseg.run_folder import (
    check_same_data,
    latest_run_folder,
    new_run_folder,
    removed_if_nothing_was_learnt,
    write_inputs,
    write_json,
)
from kerasseg.training.callbacks.history import read_history
from kerasseg.training.devices import device_name
from kerasseg.training.fit import fit
from kerasseg.training.leave_out_damaged import leave_out_damaged
from kerasseg.training.memory import check_memory
from kerasseg.training.precision import choose_precision
from kerasseg.training.schedules import warmup_epochs
from kerasseg.training.state import FILE_NAME as STATE_FILE
from kerasseg.training.state import Progress


def run_experiment(experiment: Experiment, *, resume: bool = False) -> Path:
    """Convert, train, evaluate and report; returns the run folder.

    Raises `UserError` for anything the user can mend.
    """
    started = time.monotonic()
    say = Console(highlight=False, markup=False, soft_wrap=True).print
    policy, reason = choose_precision(experiment.training.precision)
    check_memory(experiment, policy)
    old_run = latest_run_folder(experiment) if resume else None

    keras.utils.set_random_seed(experiment.run.seed)
    keras.config.set_dtype_policy(policy)
    # Before the store: weights that are missing must not show after an hour of converting.
    goes_on = old_run is not None and (old_run / "checkpoints" / STATE_FILE).exists()
    network = build_network(experiment, initial_weights=not goes_on)

    store = open_store(experiment)
    whole_split = open_split(store, experiment.split)
    split, damaged = _usable(experiment, store, whole_split)
    if old_run:
        check_same_data(old_run, whole_split, store.manifest.data_fingerprint)
    folder = old_run or new_run_folder(experiment)

    _announce(say, experiment, store, split, damaged, network, folder, f"{policy} ({reason})")
    with removed_if_nothing_was_learnt(folder):
        fingerprint = store.manifest.data_fingerprint
        write_inputs(folder, experiment, whole_split, fingerprint, device_name())
        progress = fit(experiment, network, store, split, folder, resume=resume)

    best = keras.saving.load_model(folder / "checkpoints" / "best.keras", compile=False)
    splits = {"validation": split.validation, "test": split.test}
    target, figures = experiment.model.target, folder / "figures"
    predictor = Predictor(best, experiment.pipeline, experiment.evaluation, target=target)
    overlays = experiment.evaluation.overlays
    scores = evaluate(predictor, store, splits, target, figures, overlays)
    write_metrics(folder / "metrics.csv", scores, target)
    history = read_history(folder / "history.csv")
    draw_training_curves(history, progress.best_epoch, target, figures / "training_curves.png")
    summary = _summary(experiment, store, split, damaged, network, progress, scores, policy)
    summary["minutes"] = round((time.monotonic() - started) / 60, 2)
    summary["peak_memory_gib"] = round(_peak_memory() / 2**30, 2)
    report = write_report(folder, summary, scores, target)
    write_json(folder / "summary.json", summary)
    _conclude(say, summary, report)
    return folder


def build_network(experiment: Experiment, *, initial_weights: bool = True) -> keras.Model:
    """The network of `experiment.model`, under the current dtype policy.

    Without `initial_weights` neither a pretrained encoder's nor another run's are read: a run that
    goes on has its own.
    """
    settings = experiment.model
    if not initial_weights:
        untrained = settings.pretrained.model_copy(update={"weights": "none"})
        settings = settings.model_copy(update={"pretrained": untrained, "init_from": None})
    network = models.build_network(settings, experiment.input_channels)
    load_initial_weights(network, settings)
    return network


def _usable(
    experiment: Experiment, store: RecordStore, split: Split
) -> tuple[Split, dict[str, str]]:
    """The split without damaged records, and these, as `records.on_damaged_record` says."""
    if experiment.records.on_damaged_record == "skip":
        return leave_out_damaged(store, split)
    store.check_records(split.test)  # training reads all the others in its first epoch
    return split, {}


def _announce(
    say: Any,
    experiment: Experiment,
    store: RecordStore,
    split: Split,
    damaged: dict[str, str],
    network: keras.Model,
    folder: Path,
    precision: str,
) -> None:
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
    for warning in _warnings(experiment, store):
        say(f"Warning    {warning}", style="bold yellow")
    for heading, words in _task(experiment).items():
        say(f"{heading:<11}{words}")
    say(f"Network    {network.name}, {network.count_params():,} parameters")
    say(f"Device     {device_name()}")
    say(f"Precision  {precision}")
    warmup = warmup_epochs(experiment.optimizer, experiment.training.epochs)
    if warmup < experiment.optimizer.warmup_epochs:
        say(f"Schedule   warm-up shortened to {warmup} epoch(s), half of training.epochs")
    say(f"Run        {folder} (watch: tensorboard --logdir {folder}/tensorboard)")


def _task(experiment: Experiment) -> dict[str, str]:
    """What goes in and what comes out, in words under their headings."""
    target = experiment.model.target
    patch = " x ".join(map(str, experiment.pipeline.patch_size))
    modalities = ", ".join(experiment.data.modalities)
    ends = f"of {patch} voxels: {modalities} -> {', '.join(anatomy.TARGETS[target])} ({target})"
    if experiment.model.dimensions == 3:
        return {"Task": f"3-D patches {ends}"}
    slices = experiment.pipeline.slices
    kept = {"all": "all", "brain": "those with brain", "tumour": "those with tumour"}
    words = f"{kept[slices.keep]} train"
    if slices.empty_share is not None:
        words += f", {slices.empty_share:.0%} of them without tumour"
    if slices.neighbours:
        words += f", with {slices.neighbours} neighbour(s) on each side as channels"
    return {"Task": f"2-D {slices.axis} slices {ends}", "Slices": words}


def _warnings(experiment: Experiment, store: RecordStore) -> list[str]:
    """What a reader of the scores must know."""
    warnings = []
    if not knows_patients(experiment.data):
        warnings.append(
            "The pictures have no patient ids, so neighbouring slices of one patient may stand on "
            "both sides of the split and the scores may be too high: set data.patient_pattern or "
            "data.patient_csv."
        )
    spacings = sorted({tuple(round(s, 2) for s in row.spacing) for row in store.rows.values()})
    if experiment.data.knows_spacing and len(spacings) > 1:
        sizes = (" x ".join(f"{s:g}" for s in spacing) for spacing in (spacings[0], spacings[-1]))
        warnings.append(
            f"The cases have {len(spacings)} voxel sizes, from {' to '.join(sizes)} mm (depth x "
            "height x width), which a network cannot tell apart: bring them to one with "
            "data.spacing."
        )
    model = experiment.model
    pretrained = model.network == "pretrained_unet" and model.pretrained.weights != "none"
    if experiment.training.freeze_encoder_epochs and not (pretrained or model.init_from):
        warnings.append(
            "training.freeze_encoder_epochs holds an encoder of random weights still: set it to 0, "
            "or give the encoder weights with model.init_from or model.pretrained."
        )
    return warnings


def _summary(
    experiment: Experiment,
    store: RecordStore,
    split: Split,
    damaged: dict[str, str],
    network: keras.Model,
    progress: Progress,
    scores: list[CaseScore],
    policy: str,
) -> dict[str, Any]:
    means = {s: mean_scores(r for r in scores if r.split == s) for s in ("validation", "test")}
    return {
        "run": experiment.run_name,
        "task": "; ".join(_task(experiment).values()),
        "overfit_check": split.overfit_check,
        "warnings": _warnings(experiment, store),
        "skipped_cases": {case.case_id: case.reason for case in store.manifest.skipped},
        "damaged_records": damaged,
        "case_kind": "picture" if experiment.data.layout == "image_pairs" else "volume",
        "dice": {name: values for name, values in means.items() if values},
        "best_epoch": progress.best_epoch,
        "best_validation_patch_dice": round(progress.best_score, 6),
        "epochs": progress.epochs,
        "epochs_planned": experiment.training.epochs,
        "stopped_early": progress.stopped_early,
        "parameters": network.count_params(),
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


def _conclude(say: Any, summary: dict[str, Any], report: Path) -> None:
    for split, means in summary["dice"].items():
        values = "  ".join(f"{name} {value:.3f}" for name, value in means.items())
        kind = summary["case_kind"]
        say(f"Dice of {summary['cases'][split]} whole {split} {kind}(s): {values}")
    if summary["overfit_check"]:
        say("Over-fit check: these volumes were trained on.", style="bold yellow")
    say(f"Done in {summary['minutes']:.1f} minutes. Look at {report}")


def _peak_memory() -> int:
    """Largest resident memory of this process so far in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB
