"""Every config in configs/: its heading, its network, and a few steps on data of its own layout."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from kerasseg.config.load import load_experiment
from kerasseg.pipeline.batches import TrainingBatches
from kerasseg.private_hooks import weights_without_values
from kerasseg.records.store import open_store
from kerasseg.run_experiment import build_network, run_experiment
from kerasseg.tuning.search import load_search
from tests.conftest import write_brats, write_h5_volume, write_nifti
from tests.datasets.test_dataset_json import write_msd, write_nnunet
from tests.datasets.test_lgg import write_scan
from tests.test_train import write_pairs

LAYOUTS_ONLY = ("msd_3d", "nnunet_3d", "nifti_3d")
"""Configs that differ from brats20_3d in their data alone."""
CONFIGS = sorted(Path("configs").glob("[!t]*.yaml"))  # tune_*.yaml: tests/tuning


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_the_heading_says_data_cost_expected_score_and_command(path):
    heading = path.read_text().partition("\nrun:")[0]
    assert all(word in heading for word in ("Data:", "Cost:", "Expected:", "Command:"))
    if "phantom" not in path.stem:
        assert f"python train.py --config {path} data.root=FOLDER" in heading


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_the_network_is_built(path):
    overrides = [] if "phantom" in path.stem else ["data.root=FOLDER"]
    experiment = load_experiment(path, overrides)
    assert experiment.run.name == path.stem
    if experiment.model.init_from:
        overrides.append("model.init_from=null")
    if experiment.model.network == "sam":
        overrides.append("model.sam.weights=none")
    # Only the shapes count: the weights of these networks would take seconds to draw.
    with weights_without_values():
        network = build_network(load_experiment(path, overrides))
    assert network.input_shape[-1] == experiment.input_channels
    assert len(network.input_shape) == experiment.model.dimensions + 2


@pytest.mark.parametrize("path", sorted(Path("configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_no_setting_is_warned_of(path):
    tuned = path.stem.startswith("tune")
    assert (load_search(path).base if tuned else load_experiment(path)).warnings == []


def write_data(layout, root, phantoms):
    """Two or more small cases in the layout's own files."""
    if layout == "brats_nifti":
        for index in range(2):
            write_brats(root, f"BraTS20_Training_{index:03d}", phantoms[index])
    elif layout == "brats_h5":
        for index in range(2):
            write_h5_volume(root, index, phantoms[index])
    elif layout == "msd":
        write_msd(root, {f"BRATS_{index:03d}": phantoms[index] for index in range(2)})
    elif layout == "nnunet":
        labels = {"background": 0, "NCR": 1, "ED": 2, "ET": 3}
        channels = {"0": "FLAIR", "1": "T1", "2": "T1ce", "3": "T2"}
        description = {"channel_names": channels, "labels": labels, "file_ending": ".nii.gz"}
        for index in range(2):
            write_nnunet(root, f"case{index}", phantoms[index], [0, 1, 2, 3])
        (root / "dataset.json").write_text(json.dumps({**description, "numTraining": 2}))
    elif layout == "nifti":
        for index in range(2):
            image, label = phantoms[index]
            for channel, name in enumerate(("FLAIR", "T1", "T1CE", "T2")):
                path = root / f"p{index}" / f"scan_{name}.nii.gz"
                write_nifti(path, np.rint(image[..., channel]).astype(np.int16).transpose(2, 1, 0))
            ids = np.where(label == 3, 4, label).astype(np.uint8)
            write_nifti(root / f"p{index}" / "scan_seg.nii.gz", ids.transpose(2, 1, 0))
    elif layout == "lgg":
        for index in range(2):
            write_scan(root, f"TCGA_CS_494{index}_1996" + "0" * index, slices=5)
    elif layout == "image_pairs":
        write_pairs(root, phantoms)


def small(experiment):
    """Overrides that shrink a config and change nothing of its kind."""
    overrides = [
        "training.epochs=1",
        "training.steps_per_epoch=2",
        "training.batch_size=2",
        "pipeline.patches_per_volume=2",
        "pipeline.validation_patches_per_volume=1",
        "records.workers=1",
        "evaluation.overlays=1",
        "evaluation.overlap=0.0",
    ]
    patch = [16, 16, 16] if experiment.model.dimensions == 3 else [32, 32]
    overrides.append(f"pipeline.patch_size={patch}")
    if experiment.data.layout == "image_pairs":
        overrides.append("data.size=[32,32]")
    if experiment.data.layout == "phantom":
        overrides.append("data.phantom={cases: 8, shape: [18, 24, 22]}")
    if experiment.data.layout == "brats_h5":
        overrides.append("data.h5_slices=18")
    if experiment.model.network == "unet":
        overrides += ["model.features=[4,6]", "model.bottleneck=8"]
        if isinstance(experiment.model.encoder_blocks, tuple):
            overrides.append("model.encoder_blocks=[1,2,1]")
        else:
            overrides += ["model.encoder_blocks=1", "model.decoder_blocks=1"]
        overrides.append(f"model.deep_supervision={min(experiment.model.deep_supervision, 1)}")
    if experiment.model.network == "sam":
        overrides.append("model.sam={encoder: vit_xs, side: 32, weights: none}")
    return overrides


@pytest.fixture(scope="module")
def finished():
    """Run folders of configs that others may start from."""
    return {}


@pytest.mark.parametrize("stem", LAYOUTS_ONLY)
def test_batches_of_small_data_of_its_own_layout(stem, tmp_path, phantoms):
    """The network and the training are those of brats20_3d, which the next test runs."""
    overrides = [f"data.root={tmp_path / 'raw'}", f"records.root={tmp_path / 'store'}"]
    experiment = load_experiment(f"configs/{stem}.yaml", overrides)
    others = load_experiment("configs/brats20_3d.yaml", overrides)
    for section in ("model", "optimizer", "training", "pipeline", "evaluation"):
        assert getattr(experiment, section) == getattr(others, section)
    write_data(experiment.data.layout, tmp_path / "raw", phantoms)
    experiment = load_experiment(f"configs/{stem}.yaml", [*overrides, *small(experiment)])
    store = open_store(experiment)
    options = {"target": experiment.model.target, "batch_size": 2, "seed": 0}
    batches = TrainingBatches(store, list(store.rows), experiment.pipeline, **options)
    image, target = next(iter(batches.dataset()))
    assert image.shape == (2, 16, 16, 16, 4) and target.shape == (2, 16, 16, 16, 3)
    for case, (_, label) in zip(store.rows.values(), phantoms, strict=False):
        assert list(case.voxels.values()) == [int((label == i).sum()) for i in (1, 2, 3)]


ALWAYS = "brats_regions_3d"
"""The one that runs in each `make test`. The others differ in settings that have tests of their
own, and `make test-all` runs them."""


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, id=p.stem, marks=() if p.stem == ALWAYS else pytest.mark.all_only)
        for p in CONFIGS
        if p.stem not in LAYOUTS_ONLY
    ],
)
@pytest.mark.usefixtures("figures_not_rendered")
def test_a_few_steps_on_small_data_of_its_own_layout(path, tmp_path, phantoms, finished):
    raw = tmp_path / "raw"
    overrides = [] if "phantom" in path.stem else [f"data.root={raw}"]
    experiment = load_experiment(path, overrides)
    write_data(experiment.data.layout, raw, phantoms)
    folders = [f"records.root={tmp_path / 'store'}", f"run.root={tmp_path / 'runs'}"]
    overrides += [*folders, *small(experiment)]
    if experiment.model.init_from:
        first = Path("configs") / f"{experiment.model.init_from.name}.yaml"
        assert first.exists(), "it starts from the run of a config that is here"
        if first not in finished:
            finished[first] = run_experiment(load_experiment(first, overrides))
        overrides.append(f"model.init_from={finished[first]}")
    experiment = load_experiment(path, overrides)
    folder = run_experiment(experiment)
    saved = keras.saving.load_model(folder / "checkpoints" / "best.keras")
    assert len(saved.outputs) == 1
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["epochs"] == 1 and 0 <= summary["best_validation_patch_dice"] <= 1
    assert (folder / "report.html").exists()
    finished[path] = folder


@pytest.mark.all_only
@pytest.mark.usefixtures("figures_not_rendered")
def test_a_pretrained_encoder_from_raw_scans_to_a_saved_network(tmp_path, phantoms):
    """No ready config has one, but any 2-D config takes one."""
    raw = tmp_path / "raw"
    write_data("lgg", raw, phantoms)
    folders = [f"records.root={tmp_path / 'store'}", f"run.root={tmp_path / 'runs'}"]
    pretrained = "{encoder: efficientnetlite0, decoder_features: [4,4,6,8,8]}"
    model = "{dimensions: 2, target: binary, network: pretrained_unet, norm: batch, pretrained: "
    overrides = [f"data.root={raw}", *folders, *small(load_experiment("lgg_2d"))]
    experiment = load_experiment("lgg_2d", [*overrides, f"model={model}{pretrained}}}"])
    folder = run_experiment(experiment)
    saved = keras.saving.load_model(folder / "checkpoints" / "best.keras")
    assert saved.count_params() > 3_000_000
    assert (folder / "report.html").exists()
