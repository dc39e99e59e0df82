"""The main job: an experiment in, a run folder out."""

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras
import tensorflow as tf
from rich.console import Console

from kerasseg import anatomy
from kerasseg.config.experiment import Experiment
from kerasseg.config.load import dump_experiment
from kerasseg.datasets.discovery import knows_patients, knows_voxel_sizes
from kerasseg.evaluation.evaluate import VolumeValidation, evaluate
from kerasseg.evaluation.report import write_report
from kerasseg.evaluation.scores import CaseScore, mean_scores, metric_settings, write_metrics
from kerasseg.evaluation.statistics import count_by_rule, means_as_json, slicewise_means, summarise
from kerasseg.figures.runs import draw_training_curves
from kerasseg.inference.predictor import build_predictor
from kerasseg.models import build as models
from kerasseg.models.init_from import load_initial_weights
from kerasseg.peak_memory import peak_memory
from kerasseg.pipeline.check_store import check_store
from kerasseg.records.splits import Split, open_split
from kerasseg.records.store import RecordStore, open_store
from kerasseg.run import (
    check_same_data,
    latest_run_folder,
    new_run_folder,
    read_history,
    remove_if_untrained,
    write_inputs,
    write_json,
)
from kerasseg.training.checks import (
    check_memory,
    check_precision,
    choose_precision,
    leave_out_damaged,
)
from kerasseg.training.devices import Devices, choose_devices, device_name
from kerasseg.training.fit import fit
from kerasseg.training.optimizers import warmup_epochs
from kerasseg.training.state import FILE_NAME as STATE_FILE
from kerasseg.training.state import Progress
from kerasseg.training.user_callbacks import user_callbacks


def run_experiment(
    experiment: Experiment,
    *,
    resume: bool = False,
    devices: Devices | None = None,
    last_epoch: int | None = None,
    evaluated: bool = True,
    extra_callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Path | None:
    """Convert, train, evaluate and report; returns the run folder.

    `devices` are chosen by the settings if they are not given. Of several machines the chief alone
    writes a run folder and evaluates; the others return None. Raises `UserError` for anything the
    user can mend.

    last_epoch:      end after this epoch of `training.epochs`, to be resumed from there; the
                     learning rate's schedule stays that of all epochs
    evaluated:       False: no whole volumes are segmented and no report is written
    extra_callbacks: besides those of `training.callbacks`
    """
    devices = devices or choose_devices(experiment.training)
    with devices.loss_explained():
        return _run(experiment, resume, devices, last_epoch, evaluated, extra_callbacks)


def _run(
    experiment: Experiment,
    resume: bool,
    devices: Devices,
    last_epoch: int | None,
    evaluated: bool,
    extra_callbacks: Sequence[keras.callbacks.Callback],
) -> Path | None:
    started = time.monotonic()
    say = Console(highlight=False, markup=False, soft_wrap=True, quiet=not devices.chief).print
    policy, reason = choose_precision(experiment.training.precision)
    check_precision(experiment, policy)
    check_memory(experiment, policy, devices)
    callbacks = user_callbacks(experiment, writing=devices.chief, workers=devices.workers)
    devices.check_same("config", dump_experiment(experiment))
    old_run = latest_run_folder(experiment) if resume else None

    keras.utils.set_random_seed(experiment.run.seed)
    if experiment.training.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy(policy)
    # Before the store: weights that are missing must not show after an hour of converting.
    state = old_run / "checkpoints" / STATE_FILE if old_run else None
    state = state if state and state.exists() else None
    devices.check_same("state to go on from", str(state))
    with devices.strategy.scope():
        network = build_network(experiment, initial_weights=state is None)

    store = devices.chief_first(lambda: open_store(experiment))
    whole_split = devices.chief_first(lambda: open_split(store, experiment.split))
    split, damaged = _usable(experiment, store, whole_split, evaluated)
    fingerprint = store.manifest.data_fingerprint
    devices.check_same("data", fingerprint)
    check_store(experiment, store, split.train)
    devices.check_same("split", json.dumps(split.as_json(), indent=2))
    if old_run:
        check_same_data(old_run, whole_split, fingerprint)

    with ExitStack() as stack:
        if devices.chief:
            folder = old_run or new_run_folder(experiment)
            stack.enter_context(remove_if_untrained(folder))
            write_inputs(folder, experiment, whole_split, fingerprint, device_name())
        else:  # it does what the chief does, as they compute together, but nobody reads it
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="kerasseg-worker-")))
            (folder / "checkpoints").mkdir()
        precision = f"{policy} ({reason})"
        _announce(say, experiment, store, split, damaged, network, folder, precision, devices)
        progress = fit(
            experiment,
            network,
            store,
            split,
            folder,
            devices=devices,
            state=state,
            validators=_validators(experiment, network, store, split, devices),
            callbacks=[*callbacks, *extra_callbacks],
            last_epoch=last_epoch,
        )
        if not devices.chief:
            print(f"Worker {devices.worker} is done and waits for the chief, which evaluates.")
            devices.meet()
            return None

    if not evaluated:
        summary = _summary(experiment, store, split, damaged, network, progress, [], policy)
        write_json(folder / "summary.json", summary | _cost(started))
        devices.let_go()
        return folder
    best = keras.saving.load_model(folder / "checkpoints" / "best.keras", compile=False)
    splits = {"validation": split.validation, "test": split.test}
    target, figures = experiment.model.target, folder / "figures"
    predictor = build_predictor(experiment, best)
    overlays = experiment.evaluation.overlays
    settings = metric_settings(experiment.metrics)
    scores = evaluate(predictor, store, splits, target, figures, overlays, settings)
    write_metrics(folder / "metrics.csv", scores, target)
    history = read_history(folder / "history.csv")
    draw_training_curves(history, progress.best_epoch, target, figures / "training_curves.png")
    summary = _summary(experiment, store, split, damaged, network, progress, scores, policy)
    summary |= _cost(started)
    report = write_report(folder, summary, scores, target, experiment.metrics)
    write_json(folder / "summary.json", summary)
    _conclude(say, summary, report)
    devices.let_go()
    return folder


def _cost(started: float) -> dict[str, float]:
    minutes, peak = (time.monotonic() - started) / 60, peak_memory() / 2**30
    return {"minutes": round(minutes, 2), "peak_memory_gib": round(peak, 2)}


def _validators(
    experiment: Experiment,
    network: keras.Model,
    store: RecordStore,
    split: Split,
    devices: Devices,
) -> list[keras.callbacks.Callback]:
    """Validation on whole volumes, where it is asked for."""
    every = experiment.training.validate_volumes_every
    if every is None:
        return []
    target = experiment.model.target
    predictor = build_predictor(experiment, network)
    cases, share = split.validation, devices.from_chief
    return [VolumeValidation(predictor, store, cases, target, every, share)]


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
    experiment: Experiment, store: RecordStore, split: Split, evaluated: bool
) -> tuple[Split, dict[str, str]]:
    """The split without damaged records, and these, as `records.on_damaged_record` says."""
    if experiment.records.on_damaged_record == "skip":
        return leave_out_damaged(store, split)
    if evaluated:
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
    devices: Devices,
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
    batch = experiment.training.batch_size
    parts = f", {batch // devices.replicas} on each device" if devices.replicas > 1 else ""
    say(f"Strategy   {devices.words}; batches of {batch}{parts}")
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
    if not knows_voxel_sizes(experiment.data):
        warnings.append(
            "The files do not tell the size of a pixel or the distance of slices: each counts as "
            "1 mm in the original files, so distances in mm and volumes in mL are not real ones."
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
    by_split = {s: [r for r in scores if r.split == s] for s in ("validation", "test")}
    by_split = {name: rows for name, rows in by_split.items() if rows}
    return {
        "run": experiment.run_name,
        "task": "; ".join(_task(experiment).values()),
        "overfit_check": split.overfit_check,
        "warnings": _warnings(experiment, store),
        "skipped_cases": {case.case_id: case.reason for case in store.manifest.skipped},
        "damaged_records": damaged,
        "case_kind": "picture" if experiment.data.layout == "image_pairs" else "volume",
        "dice": {name: mean_scores(rows) for name, rows in by_split.items()},
        "metrics": {
            name: means_as_json(summarise(rows, experiment.metrics))
            for name, rows in by_split.items()
        },
        "confidence": experiment.metrics.confidence,
        "decided_by_empty_rule": {name: count_by_rule(rows) for name, rows in by_split.items()},
        "slicewise": {name: slicewise_means(rows) for name, rows in by_split.items()},
        "inference_seconds": {
            name: round(sum(row.seconds for row in rows) / len(rows), 4)
            for name, rows in by_split.items()
        },
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
