"""Train one network: settings, network, data, fit and evaluation, in this order."""

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import keras
import tensorflow as tf
from rich.console import Console

from kerasseg.config.experiment import Experiment
from kerasseg.config.load import dump_experiment
from kerasseg.evaluation.evaluate import VolumeValidation, score_cases
from kerasseg.evaluation.evaluate_runs import write_training_report
from kerasseg.evaluation.results import Results
from kerasseg.evaluation.scores import metric_settings, score_columns
from kerasseg.files import write_json
from kerasseg.inference.predictor import build_predictor
from kerasseg.models import build as models
from kerasseg.models.init_from import load_initial_weights
from kerasseg.models.sam.weights import load_run
from kerasseg.pipeline.sampling import check_store
from kerasseg.records.splits import Split, open_split
from kerasseg.records.store import RecordStore, check_raw_folder, open_store
from kerasseg.run import (
    CHECKPOINT,
    Run,
    check_same_data,
    latest_run_folder,
    load_network,
    new_run_folder,
    remove_if_untrained,
    write_inputs,
)
from kerasseg.train_summary import (
    elapsed_and_peak_memory,
    end_of_fit,
    log_settings,
    print_result,
    print_start,
    summarise_run,
)
from kerasseg.training.checks import (
    check_precision,
    choose_precision,
    leave_out_damaged,
    memory_warning,
)
from kerasseg.training.devices import Devices, choose_devices, device_name
from kerasseg.training.fit import fit
from kerasseg.training.optimizers import build_optimizer
from kerasseg.training.state import FILE_NAME as STATE_FILE
from kerasseg.training.user_classes import check_functions, user_callbacks


def run_experiment(
    experiment: Experiment,
    *,
    resume: bool = False,
    devices: Devices | None = None,
    last_epoch: int | None = None,
    evaluated: bool = True,
    extra_callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Path | None:
    """Convert the scans where needed, train, evaluate whole volumes and write a report.

    Returns the run folder. With several machines only the chief writes one and evaluates; the
    others return None. Raises `UserError` for anything that the user can mend.

    Args:
        resume: Go on with the newest run of this name.
        devices: What to compute on; chosen by `experiment.training` if not given.
        last_epoch: End after this epoch of `training.epochs`, to be resumed from there. The
            learning rate's schedule stays that of all epochs.
        evaluated: False: segment no whole volumes and write no report.
        extra_callbacks: Callbacks besides those of `training.callbacks`.
    """
    started = time.monotonic()
    devices = devices or choose_devices(experiment.training)
    say = Console(highlight=False, markup=False, soft_wrap=True, quiet=not devices.chief).print
    with ExitStack() as stack:
        stack.enter_context(devices.explain_lost_worker())

        # Settings: whatever can be refused is refused before anything is converted.
        policy, reason = choose_precision(experiment.training.precision)
        check_precision(experiment, policy)
        memory = memory_warning(experiment, policy, devices)
        for warning in [*experiment.warnings, *([memory] if memory else [])]:
            say(f"Warning    {warning}", style="bold yellow")
        build_optimizer(experiment.optimizer, experiment.training.epochs, 1)  # or refuse it now
        check_functions(experiment)
        metric_settings(experiment.metrics)
        callbacks = user_callbacks(experiment, writing=devices.chief, workers=devices.workers)
        devices.check_same(
            "config",
            dump_experiment(experiment),
            "`kerasseg config` with the same arguments writes it, to be compared.",
        )
        old_run = latest_run_folder(experiment) if resume else None
        keras.utils.set_random_seed(experiment.run.seed)
        if experiment.training.deterministic:
            tf.config.experimental.enable_op_determinism()
        keras.config.set_dtype_policy(policy)

        # Network: before the data, as weights that are missing must not show after an hour of
        # converting. Weights may be downloaded, which is not done for scans that are not there.
        devices.chief_first(lambda: check_raw_folder(experiment))
        state = old_run / "checkpoints" / STATE_FILE if old_run else None
        state = state if state and state.exists() else None
        devices.check_same("state to go on from", str(state))
        # With embeddings the state of a SAM holds the decoder alone. The encoders are in the best
        # network; a run that was stopped in its first epoch has none and takes the initial weights.
        is_sam, run = experiment.model.network == "sam", old_run if state else None
        best = run if is_sam and run and (run / CHECKPOINT).is_file() else None
        with devices.strategy.scope():
            network = build_network(experiment, initial_weights=(best if is_sam else state) is None)
            if best:
                load_run(network, best)

        # Data: the chief converts and splits, the other machines find what it made.
        store = devices.chief_first(lambda: open_store(experiment))
        whole_split = devices.chief_first(lambda: open_split(store, experiment.split))
        split = whole_split
        damaged: dict[str, str] = {}
        if experiment.records.on_damaged_record == "skip":
            split, damaged = leave_out_damaged(store, whole_split)
        elif evaluated:
            store.check_records(split.test)  # the fit reads all others in its first epoch
        fingerprint = store.manifest.data_fingerprint
        devices.check_same("data", fingerprint)
        check_store(experiment, store, split.train)
        devices.check_same("split", json.dumps(split.as_json()), f"It is in {store.root}/splits.")
        if old_run:
            check_same_data(old_run, whole_split, fingerprint)

        # Run folder: the other machines compute what the chief does, but nobody reads their files.
        if devices.chief:
            folder = old_run or new_run_folder(experiment)
            stack.enter_context(remove_if_untrained(folder))
            write_inputs(folder, experiment, whole_split, store.manifest, device_name())
        else:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="kerasseg-worker-")))
            (folder / "checkpoints").mkdir()

        # Fit: optimiser, loss, epochs, checkpoints.
        precision = f"{policy} ({reason})"
        print_start(say, experiment, store, split, damaged, network, folder, precision, devices)
        progress = fit(
            experiment,
            network,
            store,
            split,
            folder,
            devices=devices,
            state=state,
            validators=_volume_validation(experiment, network, store, split, devices),
            callbacks=[*callbacks, *extra_callbacks],
            last_epoch=last_epoch,
        )
        if ended := end_of_fit(experiment.training, progress, last_epoch):
            say(ended)
        if not devices.chief:
            print(f"Worker {devices.worker} is done and waits for the chief, which evaluates.")
            devices.barrier()
            return None

        # Evaluation: the best checkpoint, on whole volumes.
        results: dict[str, Results] = {}
        if evaluated:
            predictor = build_predictor(experiment, load_network(folder / CHECKPOINT))
            cases = {"validation": split.validation, "test": split.test}
            results = score_cases(predictor, store, cases, experiment.metrics)
        summary = summarise_run(
            experiment,
            store,
            split,
            damaged,
            network,
            progress,
            Run(folder, experiment).history,
            results,
            policy,
        ) | elapsed_and_peak_memory(started)
        if evaluated:
            report = write_training_report(Run(folder, experiment), store, results, summary)
            if not experiment.model.sam.prompt_of_truth:  # it is one table of all runs
                log_settings(folder / "tensorboard", experiment, summary)
            print_result(say, summary, report)
        else:
            write_json(folder / "summary.json", summary, "run.root")
        devices.final_barrier()
        return folder


def build_network(experiment: Experiment, *, initial_weights: bool = True) -> keras.Model:
    """Build the network of `experiment.model` under the current dtype policy.

    Without `initial_weights` neither a pretrained encoder's weights nor another run's are read, as
    a run that goes on has its own. Returns a functional model from images (B, D, H, W, C) or
    (B, H, W, C) to probabilities of K channels.
    """
    settings = experiment.model if initial_weights else experiment.model.without_weights
    network = models.build_network(settings, experiment.input_channels)
    load_initial_weights(network, settings)
    return network


def _volume_validation(
    experiment: Experiment, network: keras.Model, store: RecordStore, split: Split, devices: Devices
) -> list[keras.callbacks.Callback]:
    """Return the callback that validates on whole volumes, if the experiment asks for it."""
    every = experiment.training.validate_volumes_every
    if every is None:
        return []
    predictor = build_predictor(experiment, network)
    names = [f"val_volume_dice_{column}" for column in score_columns(experiment.model.target)]
    share = partial(devices.broadcast, names=names)
    return [VolumeValidation(predictor, store, split.validation, every, share)]
