"""The main job in one go: raw files to report, in every layout."""

import csv
import dataclasses
import json
import re
import shutil

import keras
import numpy as np
import pytest
from PIL import Image

from kerasseg.config.load import load_experiment
from kerasseg.errors import UserError
from kerasseg.inference.predictor import Predictor
from kerasseg.metrics.overlap import dice
from kerasseg.records.splits import open_split
from kerasseg.records.store import open_store
from kerasseg.run import check_same_data, latest_run_folder
from kerasseg.run_experiment import run_experiment
from kerasseg.train_summary import warnings_about_scores
from kerasseg.training.state import Progress
from tests.conftest import LPS, SHAPE, TINY, phantom_experiment, write_brats, write_h5_volume

FILES = {
    "config.yaml",
    "environment.json",
    "split.json",
    "history.csv",
    "metrics.csv",
    "summary.json",
    "report.html",
    "checkpoints",
    "figures",
    "tensorboard",
}

BLOCKS = ("model.encoder_blocks=1", "model.decoder_blocks=1")
FINISHED = ("evaluation.overlays=1", "split.test=0.25", *BLOCKS)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An experiment of 3-D patches and its run folder."""
    folder = tmp_path_factory.mktemp("run")
    experiment = phantom_experiment(folder, *FINISHED)
    return experiment, run_experiment(experiment)


def test_the_run_folder_is_complete(finished):
    experiment, folder = finished
    assert folder == experiment.run.root / "tiny"
    assert {path.name for path in folder.iterdir()} == FILES
    assert {p.name for p in (folder / "checkpoints").iterdir()} >= {"best.keras", "last.keras"}
    assert load_experiment(folder / "config.yaml") == experiment
    figures = {path.name for path in (folder / "figures").iterdir()}
    split = json.loads((folder / "split.json").read_text())
    for case_id in (split["validation"][0], split["test"][0]):
        assert {f"{case_id}_overlay.png", f"{case_id}_views.png"} <= figures
    assert len(figures) == 5 and "training_curves.png" in figures
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["packages"]["keras"] == keras.__version__
    report = (folder / "report.html").read_text()
    assert report.count('src="data:image/png;base64,') == len(figures) and "Over-fit" not in report
    assert not re.findall(r'(?:src|href)="(?!data:image/png|#)', report), "one file to be sent"


def test_the_table_says_what_the_saved_model_does(finished):
    """Load best.keras as a stranger would, segment a test volume, compare with metrics.csv."""
    experiment, folder = finished
    with (folder / "metrics.csv").open() as file:
        rows = {row["case_id"]: row for row in csv.DictReader(file)}
    split = json.loads((folder / "split.json").read_text())
    assert set(rows) == {*split["validation"], *split["test"]}
    model = keras.saving.load_model(folder / "checkpoints" / "best.keras")
    predictor = Predictor(
        model, experiment.pipeline, experiment.evaluation, target=experiment.model.target
    )
    case = open_store(experiment).load(split["test"][0]).case
    masks = predictor.masks(case.image)
    for index, name in enumerate(("NCR", "ED", "ET")):
        score = float(rows[case.case_id][f"dice_{name}"])
        assert dice(case.label == index + 1, masks[..., index]) == pytest.approx(score, abs=1e-5)
    summary = json.loads((folder / "summary.json").read_text())
    test = [float(r["dice_mean"]) for r in rows.values() if r["split"] == "test"]
    assert summary["dice"]["test"]["mean"] == pytest.approx(np.mean(test), abs=1e-5)
    for column in ("hd95_ET", "volume_truth_WT", "lesion_wise_dice_TC"):
        values = [float(r[column]) for r in rows.values() if r["split"] == "test"]
        metric, _, name = column.rpartition("_")
        mean = summary["metrics"]["test"][name][metric]
        assert mean["mean"] == pytest.approx(np.mean(values), abs=1e-5) and mean["cases"] == 2
    ruled = [r for r in rows.values() if r["split"] == "test" and r["empty_ET"] != "neither"]
    assert summary["decided_by_empty_rule"]["test"].get("dice_ET", 0) == len(ruled)


@pytest.mark.all_only  # test_resume trains twice, bit for bit; test_run names the second folder
@pytest.mark.usefixtures("figures_not_rendered")
def test_a_second_run_gets_its_own_folder_and_the_same_result(finished):
    experiment, folder = finished
    again = run_experiment(experiment)
    assert again == folder.with_name("tiny-2")
    assert (again / "metrics.csv").read_text() == (folder / "metrics.csv").read_text()


@pytest.mark.usefixtures("figures_not_rendered")
def test_resume_goes_to_the_newest_run_and_refuses_another_config(finished, tmp_path):
    experiment, folder = finished
    for section, name, found in (("training", "epochs", 2), ("augment", "preset", "none")):
        value = {"epochs": 3, "preset": "light"}[name]
        settings = getattr(experiment, section).model_copy(update={name: value})
        with pytest.raises(UserError, match=rf"{section}.{name}: {found} -> {value}"):
            latest_run_folder(experiment.model_copy(update={section: settings}))
    before = (folder / "metrics.csv").read_text()
    # Where it is computed does not change what is computed.
    elsewhere = experiment.training.model_copy(update={"devices": "cpu", "jit_compile": False})
    resumed = run_experiment(experiment.model_copy(update={"training": elsewhere}), resume=True)
    assert (resumed / "metrics.csv").read_text() == before, "a finished run is evaluated again"
    names = ["tiny-2021", "tiny-7"]
    for name in names:  # other people's runs whose names begin like this one's
        shutil.copytree(folder, folder.with_name(name))
        config = folder.with_name(name) / "config.yaml"
        config.write_text(config.read_text().replace("tiny", name, 1))
    assert latest_run_folder(experiment) == resumed
    with pytest.raises(UserError, match="there is no run tiny"):
        latest_run_folder(phantom_experiment(tmp_path))


@pytest.mark.usefixtures("figures_not_rendered")
def test_a_finished_run_is_evaluated_with_other_post_processing(finished):
    """Nothing is as large as a litre, so every mask is empty: Dice 0, or 1 without that class."""
    experiment, _ = finished
    litre = dict.fromkeys(("NCR", "ED", "ET"), 1e6)
    settings = experiment.postprocessing.model_copy(update={"minimum_volume": litre})
    folder = run_experiment(experiment.model_copy(update={"postprocessing": settings}), resume=True)
    with (folder / "metrics.csv").open() as file:
        values = {float(row[f"dice_{c}"]) for row in csv.DictReader(file) for c in litre}
    assert values <= {0.0, 1.0} and 0.0 in values


def test_resume_refuses_another_split_and_other_data(finished):
    experiment, folder = finished
    store = open_store(experiment)
    split = open_split(store, experiment.split)
    fingerprint = store.manifest.data_fingerprint
    check_same_data(folder, split, fingerprint)
    other = dataclasses.replace(split, train=split.test, test=split.train)
    with pytest.raises(UserError, match="split beside the store is not the one"):
        check_same_data(folder, other, fingerprint)
    with pytest.raises(UserError, match="was trained on a store with data fingerprint"):
        check_same_data(folder, split, "another")


def test_a_run_that_ends_early_says_why(phantom_store, tmp_path, capsys, monkeypatch):
    store = f"records.root={phantom_store.root}"
    done = Progress(epochs=7, best_epoch=3, best_score=0.81234, stopped_early=True)
    monkeypatch.setattr("kerasseg.run_experiment.fit", lambda *job, **options: done)
    for stopped, epochs, reason in (
        (
            True,
            9,
            "the smoothed validation Dice was not better than 0.8123, that of epoch 3, for 4",
        ),
        (False, 9, "a callback asked for it."),
        (True, 7, None),
    ):
        done.stopped_early = stopped
        options = (f"training.epochs={epochs}", "training.early_stopping_patience=4")
        experiment = phantom_experiment(tmp_path, store, *options)
        run_experiment(experiment, evaluated=False)
        shown = [line for line in capsys.readouterr().out.splitlines() if "Stopped" in line]
        assert len(shown) == (reason is not None)
        assert reason is None or f"Stopped    after epoch 7 of 9: {reason}" in shown[0]


def damage(store, case_id):
    """Turn a bit of a record."""
    row = store.rows[case_id]
    data = bytearray((store.root / row.shard).read_bytes())
    data[row.offset + 500] ^= 4
    (store.root / row.shard).write_bytes(data)


def test_a_damaged_record_ends_a_run_and_leaves_no_folder(tmp_path):
    """One of the test cases before training, one of the training cases during it."""
    experiment = phantom_experiment(tmp_path, "split.test=0.25")
    store = open_store(experiment)
    for split, where in (("test", "before"), ("train", "during")):
        case_id = getattr(open_split(store, experiment.split), split)[0]
        shard = store.root / store.rows[case_id].shard
        whole = shard.read_bytes()
        damage(store, case_id)
        with pytest.raises(UserError, match=f"record of case {case_id}"):
            run_experiment(experiment)
        shard.write_bytes(whole)
        runs = tmp_path / "runs"
        assert not runs.exists() or not list(runs.iterdir()), f"found {where} training"


@pytest.mark.usefixtures("untrained")
def test_damaged_records_are_left_out_of_every_side_and_named(tmp_path, capsys):
    options = ("split.test=0.25", "records.on_damaged_record=skip")
    experiment = phantom_experiment(tmp_path, *options)
    store = open_store(experiment)
    split = open_split(store, experiment.split)
    assert [len(side) for side in (split.train, split.validation, split.test)] == [5, 1, 2]
    lost = (split.train[1], split.test[0])
    for case_id in lost:
        damage(store, case_id)
    folder = run_experiment(experiment)
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary["damaged_records"]) == set(lost)
    assert summary["cases"] == {"train": 4, "validation": 1, "test": 1}
    shown, report = capsys.readouterr().out, (folder / "report.html").read_text()
    assert "2 cases were left out of the split" in " ".join(report.split())
    for case_id in lost:
        message = summary["damaged_records"][case_id]
        assert f"the record of case {case_id}" in message
        assert f"Damaged    left out: {message}" in shown and case_id in report
    with (folder / "metrics.csv").open() as file:
        assert {row["case_id"] for row in csv.DictReader(file)} == {
            *split.validation,
            split.test[1],
        }
    assert json.loads((folder / "split.json").read_text()) == split.as_json(), "the whole split"


@pytest.mark.usefixtures("figures_not_rendered")
def test_a_run_that_a_damaged_record_stopped_goes_on_without_it(finished, tmp_path):
    experiment = phantom_experiment(tmp_path, *FINISHED)
    folder = tmp_path / "runs" / "tiny"
    shutil.copytree(finished[1], folder)
    store = open_store(experiment)  # of the same phantoms
    damage(store, open_split(store, experiment.split).test[0])
    with pytest.raises(UserError, match="record of case"):
        run_experiment(experiment, resume=True)
    patient = experiment.records.model_copy(update={"on_damaged_record": "skip"})
    experiment = experiment.model_copy(update={"records": patient})
    assert run_experiment(experiment, resume=True) == folder
    assert len(json.loads((folder / "summary.json").read_text())["damaged_records"]) == 1


FLAT = (*BLOCKS, "model.dimensions=2", "pipeline.patch_size=[16,12]", "evaluation.window_batch=8")


@pytest.mark.parametrize(
    ("options", "task", "columns"),
    [
        pytest.param(
            ("model.target=binary", "data.modalities=[flair]"),
            ["2-D axial slices of 16 x 12 voxels: flair -> tumour (binary)", "those with brain"],
            ["dice_tumour"],
            marks=pytest.mark.all_only,  # the pictures below are a binary target in 2-D, too
        ),
        (
            (
                "pipeline.slices={axis: coronal, neighbours: 1, keep: all, empty_share: 0.25}",
                "evaluation.overlays=1",
            ),
            [
                "2-D coronal slices of 16 x 12 voxels: flair, t1, t1ce, t2 -> NCR, ED, ET",
                "all train, 25% of them without tumour, with 1 neighbour(s) on each side",
            ],
            ["dice_NCR", "dice_ED", "dice_ET", "dice_mean", "dice_WT", "dice_TC"],
        ),
    ],
)
def test_slices_of_volumes_to_a_report(
    graphs_as_users_have_them, tmp_path, capsys, options, task, columns
):
    """A 2-D network is trained on slices and scored on the whole volumes."""
    experiment = phantom_experiment(tmp_path, "split.test=0.25", *FLAT, *options)
    folder = run_experiment(experiment)
    shown = capsys.readouterr().out
    assert all(sentence in shown for sentence in task) and "unet_2d" in shown
    with (folder / "metrics.csv").open() as file:
        rows = {row["case_id"]: row for row in csv.DictReader(file)}
    assert list(next(iter(rows.values())))[2:][: len(columns)] == columns
    with (folder / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    channels = [c for c in columns if c not in ("dice_mean", "dice_WT", "dice_TC")]
    for row in history:
        values = [float(row[f"val_{name}"]) for name in channels]
        assert float(row["val_dice"]) == pytest.approx(np.mean(values), abs=1e-6)
    split = json.loads((folder / "split.json").read_text())
    model = keras.saving.load_model(folder / "checkpoints" / "best.keras")
    predictor = Predictor(
        model, experiment.pipeline, experiment.evaluation, target=experiment.model.target
    )
    case = open_store(experiment).load(split["test"][0]).case
    masks = predictor.masks(case.image)
    assert masks.shape == (*case.label.shape, len(channels))
    truth = case.label > 0 if len(channels) == 1 else case.label == 1
    score = float(rows[case.case_id][channels[0]])
    assert dice(truth, masks[..., 0]) == pytest.approx(score, abs=1e-5)
    figures = {path.name for path in (folder / "figures").iterdir()}
    report = (folder / "report.html").read_text()
    assert f"{case.case_id}_views.png" in figures
    assert report.count('src="data:image/png;base64,') == len(figures)


@pytest.mark.all_only  # the pictures are a binary target, the first run is 3-D
def test_a_3d_network_of_the_whole_tumour(tmp_path, capsys):
    folder = run_experiment(phantom_experiment(tmp_path, "model.target=binary"))
    assert "3-D patches of 8 x 16 x 12 voxels" in capsys.readouterr().out
    assert list(json.loads((folder / "summary.json").read_text())["dice"]["test"]) == ["tumour"]
    model = keras.saving.load_model(folder / "checkpoints" / "best.keras")
    assert model.output_shape == (None, None, None, None, 1)


def write_pairs(root, phantoms):
    """Four pictures of 24 x 22 and their masks, of two patients."""
    for index in range(4):
        image, label = phantoms[index]
        plane = int((label > 0).sum(axis=(1, 2)).argmax())
        grey = image[plane, ..., 0] / max(image[plane, ..., 0].max(), 1) * 255
        for kind, values in (("images", grey), ("masks", (label[plane] > 0) * 255)):
            (root / kind).mkdir(parents=True, exist_ok=True)
            name = f"p{index // 2}_slice{index}.png"
            Image.fromarray(values.astype(np.uint8)).save(root / kind / name)


@pytest.mark.usefixtures("figures_not_rendered")
def test_pictures_to_a_report_that_warns_of_unknown_patients(tmp_path, phantoms, capsys):
    write_pairs(tmp_path / "raw", phantoms)
    base = [
        *TINY,
        "pipeline.patch_size=[16,16]",
        "data.size=null",
        "training.batch_size=2",
        "records.workers=1",
        f"data.root={tmp_path / 'raw'}",
        f"records.root={tmp_path / 'store'}",
        f"run.root={tmp_path / 'runs'}",
    ]
    folder = run_experiment(load_experiment("configs/pairs_2d.yaml", base))
    shown, report = capsys.readouterr().out, (folder / "report.html").read_text()
    warning, sizes = json.loads((folder / "summary.json").read_text())["warnings"]
    assert "no patient ids" in warning and "scores may be too high" in warning
    assert "volumes in mL are not real ones" in sizes and sizes in report
    assert f"Warning    {warning}" in shown and warning in report
    assert "whole test picture(s): tumour" in shown
    figures = {path.name for path in (folder / "figures").iterdir()}
    assert not any("views" in name for name in figures)
    assert report.count('src="data:image/png;base64,') == len(figures)

    known = [*base, "data.patient_pattern=^(p\\d)", f"records.root={tmp_path / 'known'}"]
    experiment = load_experiment("configs/pairs_2d.yaml", known)
    assert warnings_about_scores(experiment, open_store(experiment)) == [sizes]


@pytest.fixture
def untrained(finished, monkeypatch, figures_not_rendered):
    """Runs save their network as it was made, with the history of `finished`: for tests of what is
    read and written before and after a training."""

    def fit(experiment, network, store, split, folder, **options):
        assert not store.damaged_records(split.train)
        network.save(folder / "checkpoints" / "best.keras")
        shutil.copy(finished[1] / "history.csv", folder)
        return Progress(epochs=2, best_epoch=2, best_score=0.5)

    monkeypatch.setattr("kerasseg.run_experiment.fit", fit)


@pytest.mark.usefixtures("untrained")
def test_one_volume_of_h5_slices_to_a_report_that_says_over_fit(tmp_path, phantoms):
    write_h5_volume(tmp_path / "raw", 6, phantoms[0])
    experiment = load_experiment(
        "configs/brats20_3d.yaml",
        [
            *TINY,
            f"data.root={tmp_path / 'raw'}",
            f"data.h5_slices={SHAPE[0]}",
            f"records.root={tmp_path / 'store'}",
            f"run.root={tmp_path / 'runs'}",
        ],
    )
    folder = run_experiment(experiment)
    assert json.loads((folder / "summary.json").read_text())["overfit_check"] is True
    assert "Over-fit check." in (folder / "report.html").read_text()


@pytest.mark.usefixtures("untrained")  # test_configs trains on such files
def test_brats_nifti_files_to_a_report(brats_experiment, brats_root, phantoms, tmp_path, capsys):
    """Two of four modalities, of cases of two voxel sizes and one that cannot be read."""
    write_brats(brats_root, "thick", phantoms[2], affine=LPS * [1, 1, 3, 1])
    bad = brats_root / "BraTS2021_00009"
    shutil.copytree(brats_root / "BraTS2021_00000", bad)
    for path in bad.iterdir():
        path.rename(bad / path.name.replace("00000", "00009"))
    (bad / "BraTS2021_00009_t1ce.nii.gz").write_bytes(b"cut")
    options = ("data.modalities=[flair,t1ce]", "data.on_bad_case=skip")
    folder = run_experiment(brats_experiment(f"run.root={tmp_path / 'runs'}", *options))
    model = keras.saving.load_model(folder / "checkpoints" / "best.keras")
    assert model.input_shape[-1] == 2
    summary = json.loads((folder / "summary.json").read_text())
    report = " ".join((folder / "report.html").read_text().split())
    (warning,) = summary["warnings"]
    assert "2 voxel sizes, from 1 x 1 x 1 to 3 x 1 x 1 mm" in warning and warning in report
    skipped = summary["skipped_cases"]
    assert list(skipped) == ["BraTS2021_00009"] and "BraTS2021_00009_t1ce" in skipped.popitem()[1]
    assert "1 case was left out of the data set" in report and "BraTS2021_00009_t1ce" in report
    assert "Skipped    1 case(s) of the data set" in capsys.readouterr().out
