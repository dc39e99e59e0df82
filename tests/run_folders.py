"""Run folders that are written without a training."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras

from kerasseg.config.experiment import Experiment
from kerasseg.config.load import dump_experiment
from kerasseg.records.splits import open_split
from kerasseg.records.store import open_store
from kerasseg.run import new_run_folder, write_inputs
from kerasseg.run_experiment import build_network

SMALL = (
    "model.features=[4]",
    "model.bottleneck=6",
    "model.encoder_blocks=1",
    "model.decoder_blocks=1",
    "model.target=regions",
    "pipeline.patch_size=[8,16,12]",
    "evaluation.overlap=0.25",
)
SLICES = (*SMALL[:5], "model.dimensions=2", "pipeline.patch_size=[12,16]")


def write_run(folder: Path, experiment: Experiment, seed: int = 0) -> Path:
    """Write what inference needs of a run: its config, and an untrained network that is sure of
    what it says."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_experiment(experiment))
    save_network(folder, experiment, seed)
    return folder


def make_run(experiment: Experiment, seed: int = 0) -> Path:
    """Make a run folder as training leaves it, but for the training: with a store and a split."""
    store, folder = open_store(experiment), new_run_folder(experiment)
    split = open_split(store, experiment.split)
    write_inputs(folder, experiment, split, store.manifest, "CPU")
    save_network(folder, experiment, seed)
    return folder


def save_network(folder: Path, experiment: Experiment, seed: int) -> None:
    """Save an untrained network whose probabilities are not all near 0.5."""
    keras.utils.set_random_seed(seed)
    network = build_network(experiment)
    head = network.get_layer("head")
    head.set_weights([w * 4 for w in head.get_weights()])
    network.save(folder / "checkpoints" / "best.keras")


def not_written(model: Any, labels: str | None = None, *, gzip: bool = True) -> SimpleNamespace:
    """Return the signatures of an exported model as `tf.saved_model.load` does, without writing and
    reading it."""
    from kerasseg.serving import export
    from kerasseg.serving.signatures import ExportedModel

    accepted, ids = (
        export.accepted_by(model, export.LARGEST_VOLUME),
        export.served_ids(model, labels),
    )
    metadata = export.describe(model, accepted, ids, gzip=gzip)
    exported = ExportedModel(model, accepted, ids, metadata, gzip=gzip)
    return SimpleNamespace(signatures=exported.signatures(), exported=exported)
