"""The main job in one go: raw files to report, in every layout."""

import csv
import json
import shutil

import keras
import numpy as np
import pytest

from kerasseg.config_file import load_experiment
from kerasseg.errors import UserError
from kerasseg.experiment import run_experiment
from kerasseg.inference.predictor import Predictor
from kerasseg.metrics.dice import dice
from kerasseg.records.split import open_split
from kerasseg.records.store import open_store
from tests.conftest import SHAPE, TINY, phantom_experiment, write_h5_volume

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


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    experiment = phantom_experiment(folder, "evaluation.overlays=1", "split.test=0.25")
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
    assert all(name in report for name in figures) and "Over-fit" not in report


def test_the_table_says_what_the_saved_model_does(finished):
    """Load best.keras as a stranger would, segment a test volume, compare with metrics.csv."""
    experiment, folder = finished
    with (folder / "metrics.csv").open() as file:
        rows = {row["case_id"]: row for row in csv.DictReader(file)}
    split = json.loads((folder / "split.json").read_text())
    assert set(rows) == {*split["validation"], *split["test"]}
    model = keras.saving.load_model(folder / "checkpoints" / "best.keras")
    predictor = Predictor(model, experiment.pipeline.patch_size, experiment.evaluation)
    case = open_store(experiment).load(split["test"][0]).case
    masks = predictor.masks(case.image)
    for index, name in enumerate(("NCR", "ED", "ET")):
        score = float(rows[case.case_id][f"dice_{name}"])
        assert dice(case.label == index + 1, masks[..., index]) == pytest.approx(score, abs=1e-5)
    summary = json.loads((folder / "summary.json").read_text())
    test = [float(r["dice_mean"]) for r in rows.values() if r["split"] == "test"]
    assert summary["dice"]["test"]["mean"] == pytest.approx(np.mean(test), abs=1e-5)


def test_a_second_run_gets_its_own_folder_and_the_same_result(finished):
    experiment, folder = finished
    again = run_experiment(experiment)
    assert again == folder.with_name("tiny-2")
    assert (again / "metrics.csv").read_text() == (folder / "metrics.csv").read_text()


def test_resume_goes_to_the_newest_run_and_refuses_another_config(finished, tmp_path):
    experiment, folder = finished
    with pytest.raises(UserError, match=r"training.epochs: 2 -> 3"):
        other = experiment.model_copy(
            update={"training": experiment.training.model_copy(update={"epochs": 3})}
        )
        run_experiment(other, resume=True)
    before = (folder / "metrics.csv").read_text()
    resumed = run_experiment(experiment, resume=True)
    assert (resumed / "metrics.csv").read_text() == before, "a finished run is evaluated again"
    names = ["tiny-2021", "tiny-7"]
    for name in names:  # other people's runs whose names begin like this one's
        shutil.copytree(folder, folder.with_name(name))
        config = folder.with_name(name) / "config.yaml"
        config.write_text(config.read_text().replace("tiny", name, 1))
    assert run_experiment(experiment, resume=True) == resumed
    with pytest.raises(UserError, match="there is no run tiny"):
        run_experiment(phantom_experiment(tmp_path), resume=True)


def test_resume_refuses_another_split_and_other_data(tmp_path):
    experiment = phantom_experiment(tmp_path, "split.test=0.25")
    folder = run_experiment(experiment)
    (path,) = (tmp_path / "store" / "splits").iterdir()
    split = json.loads(path.read_text())
    split["train"], split["test"] = split["test"], split["train"]
    path.write_text(json.dumps(split))
    with pytest.raises(UserError, match="split beside the store is not the one"):
        run_experiment(experiment, resume=True)
    environment = json.loads((folder / "environment.json").read_text())
    environment["data_fingerprint"] = "another"
    (folder / "environment.json").write_text(json.dumps(environment))
    with pytest.raises(UserError, match="data fingerprint another"):
        run_experiment(experiment, resume=True)


def test_a_damaged_test_record_is_found_before_training_and_leaves_no_run(tmp_path):
    experiment = phantom_experiment(tmp_path, "split.test=0.25")
    store = open_store(experiment)
    for split, where in (("test", "before"), ("train", "during")):
        case_id = getattr(open_split(store, experiment.split), split)[0]
        row = store.rows[case_id]
        shard = store.root / row.shard
        whole = shard.read_bytes()
        data = bytearray(whole)
        data[row.offset + 500] ^= 4
        shard.write_bytes(data)
        with pytest.raises(UserError, match=f"record of case {case_id}"):
            run_experiment(experiment)
        shard.write_bytes(whole)
        runs = tmp_path / "runs"
        assert not runs.exists() or not list(runs.iterdir()), f"found {where} training"


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


def test_brats_nifti_files_to_a_report(brats_experiment, tmp_path):
    experiment = brats_experiment(f"run.root={tmp_path / 'runs'}", "data.modalities=[flair,t1ce]")
    folder = run_experiment(experiment)
    model = keras.saving.load_model(folder / "checkpoints" / "best.keras")
    assert model.input_shape[-1] == 2
