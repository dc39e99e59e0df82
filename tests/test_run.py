"""A run folder is written and read in one place; whatever is wrong with one has its sentence."""

import json
import shutil
import subprocess
import zipfile

import keras
import pytest
import yaml

from kerasseg.config.evaluation import PostprocessingSettings
from kerasseg.config.load import load_experiment
from kerasseg.errors import UserError
from kerasseg.run import (
    POSTPROCESSING,
    latest_run_folder,
    load_network,
    new_run_folder,
    read_run,
    remove_if_untrained,
    runs_in,
    write_postprocessing,
)
from tests.conftest import phantom_experiment
from tests.run_folders import SMALL, make_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run folder beside a store of its own."""
    return make_run(phantom_experiment(tmp_path_factory.mktemp("run"), *SMALL, "split.test=0.25"))


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it to be spoilt, beside another one."""
    shutil.copytree(finished, tmp_path / "other")
    shutil.copytree(finished, tmp_path / "spoilt")
    return tmp_path / "spoilt"


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_run_is_read_back(finished):
    run = read_run(finished, ["evaluation.flips=[width]"])
    assert run.experiment.evaluation.flips == ("width",)
    assert [len(run.case_ids(side)) for side in ("train", "validation", "test")] == [5, 1, 2]
    assert run.summary == {} and run.history == [], "it was not trained"
    assert run.environment["packages"]["keras"] == keras.__version__
    assert run.seen("voxel_sizes") == ([1, 1, 1], [1, 1, 1]) and run.experiment.data.channels == {}
    assert len(run.open_store().rows) == 8
    assert run.load_network().name == "unet_3d"
    assert runs_in(finished.parent) == ["tiny"]


def test_a_folder_that_is_missing_or_is_no_run(run):
    with pytest.raises(UserError, match=r"nowhere is not there\. .*beside it are other, spoilt\."):
        read_run(run.with_name("nowhere"))
    (run / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"spoilt is not a run folder: it has no config\.yaml\."):
        read_run(run)


def test_a_run_of_an_older_version_that_used_its_own_muon(run):
    values = yaml.safe_load((run / "config.yaml").read_text())
    values["optimizer"] |= {"name": "muon", "momentum": 0.95}
    values["run"]["root"] = str(run.parent)
    run = run.rename(run.with_name("tiny"))
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    assert read_run(run).experiment.optimizer.name == "keras.optimizers.Muon"
    again = load_experiment(run / "config.yaml")
    assert again.optimizer.name == "keras.optimizers.Muon", "kerasseg convert takes it, too"
    with pytest.raises(UserError, match=r"trained with kerasseg's own muon, .*start anew"):
        latest_run_folder(again)


def test_a_config_of_another_version(run):
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text + "\nfuture: {setting: 1}\n")
    with pytest.raises(UserError, match=r"config\.yaml.*future") as here:
        read_run(run)
    assert "was made with" not in str(here.value)
    packages = json.loads((run / "environment.json").read_text())["packages"]
    change(run / "environment.json", packages=packages | {"kerasseg": "7.0"})
    with pytest.raises(UserError, match=r"future.* made with kerasseg 7\.0, and here is kerasseg"):
        read_run(run)


def test_no_checkpoint(run):
    (run / "checkpoints" / "best.keras").unlink()
    with pytest.raises(
        UserError,
        match=r"spoilt: the run has no checkpoint \(checkpoints/best\.keras\), as its training has "
        r"not come to the end of an epoch.*--resume.* have one: other\.",
    ):
        read_run(run)
    assert read_run(run, trained=False).checkpoint == run / "checkpoints" / "best.keras"


def test_a_damaged_checkpoint(run):
    path = run / "checkpoints" / "best.keras"
    whole = path.read_bytes()
    middle = bytearray(whole)
    middle[len(whole) // 2 : len(whole) // 2 + 200] = bytes(200)
    for data in (b"half a file", whole[: len(whole) // 2], bytes(middle)):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"best\.keras cannot be .* was cut or overwritten"):
            read_run(run).load_network()


def test_a_checkpoint_that_this_version_cannot_read(run):
    path = run / "checkpoints" / "best.keras"
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    config = files["config.json"].replace(b'"Conv3D"', b'"ConvOfTheFuture"')
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (files | {"config.json": config}).items():
            archive.writestr(name, data)
    with pytest.raises(UserError, match=r"best\.keras cannot be read .*Name another run or file"):
        load_network(path)
    packages = json.loads((run / "environment.json").read_text())["packages"]
    change(run / "environment.json", packages=packages | {"keras": "9.1.0"})
    with pytest.raises(
        UserError,
        match=rf"run was made with keras 9\.1\.0, and here is keras {keras.__version__}: use it",
    ):
        load_network(path)


@pytest.mark.parametrize("name", ["split.json", "environment.json"])
def test_a_file_that_is_missing_or_no_json(run, name):
    def read():
        loaded = read_run(run)
        return loaded.split, loaded.data_fingerprint

    (run / name).write_text("{}")
    with pytest.raises(UserError, match=rf"{name}: has no (train|data_fingerprint)"):
        read()
    (run / name).write_text("{")
    with pytest.raises(UserError, match=rf"{name}: is no JSON"):
        read()
    (run / name).unlink()
    with pytest.raises(UserError, match=rf"{name}: is missing"):
        read()


def test_a_run_of_an_early_version_has_no_environment_and_is_used(run):
    (run / "environment.json").write_text('{"packages": {"keras": "3.0"}}')
    assert read_run(run).environment == {"packages": {"keras": "3.0"}}
    (run / "environment.json").unlink()
    assert read_run(run).environment == {}


@pytest.mark.parametrize("error", [RuntimeError("addr overflow"), AttributeError("x"), EOFError()])
def test_whatever_a_file_of_other_contents_raises_is_a_sentence(run, monkeypatch, error):
    def load_model(*_, **__):
        raise error

    monkeypatch.setattr(keras.saving, "load_model", load_model)
    with pytest.raises(UserError, match=r"best\.keras cannot be read as a Keras network"):
        read_run(run).load_network()
    error = PermissionError(13, "denied")
    with pytest.raises(UserError, match=r"best\.keras: there is no permission"):
        read_run(run).load_network()


def test_a_side_without_cases(run):
    change(run / "split.json", test=[])
    with pytest.raises(UserError, match=r"no test case; there are train \(5\), validation \(1\)"):
        read_run(run).case_ids("test")


def test_a_store_of_other_data(run):
    change(run / "environment.json", data_fingerprint="other")
    with pytest.raises(UserError, match="data fingerprint other, but that of"):
        read_run(run).open_store()


def test_nothing_is_converted_for_a_run_whose_store_is_missing(run, tmp_path):
    config = run / "config.yaml"
    before = str(read_run(run).experiment.records.root)
    config.write_text(config.read_text().replace(before, str(tmp_path / "gone")))
    with pytest.raises(UserError, match=rf"gone is not there.*kerasseg convert --config {config}"):
        read_run(run).open_store()
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("text", ["{", "nonsense: 1", "thresholds: {NCR: 0.4}"])
def test_tuned_post_processing_that_cannot_be_used(run, text):
    (run / POSTPROCESSING).write_text(text)
    with pytest.raises(UserError, match=rf"{POSTPROCESSING}: is no post-processing .* delete"):
        read_run(run)


def test_settings_of_the_command_line_win_over_tuned_ones(run):
    tuned = PostprocessingSettings(minimum_enhancing=100.0, fill_holes=("WT",))
    assert write_postprocessing(run, tuned) == run / POSTPROCESSING
    assert read_run(run).experiment.postprocessing == tuned
    other = read_run(run, ["postprocessing.minimum_enhancing=7"]).experiment
    assert other.postprocessing == tuned.model_copy(update={"minimum_enhancing": 7.0})


def test_a_run_folder_is_kept_only_with_a_checkpoint(tmp_path):
    experiment = phantom_experiment(tmp_path)
    for trained in (False, True):
        folder = new_run_folder(experiment)
        with pytest.raises(RuntimeError), remove_if_untrained(folder):
            if trained:
                (folder / "checkpoints" / "last.keras").touch()
            raise RuntimeError
        assert folder.exists() == trained
    assert new_run_folder(experiment).name == "tiny-2"


def test_the_newest_run_is_resumed_unless_its_config_is_another(finished):
    experiment = read_run(finished).experiment
    assert latest_run_folder(experiment) == finished
    epochs = experiment.training.model_copy(update={"epochs": 3})
    with pytest.raises(UserError, match=r"training\.epochs: 2 -> 3"):
        latest_run_folder(experiment.model_copy(update={"training": epochs}))
    # Where it is computed does not change what is computed.
    there = experiment.training.model_copy(update={"devices": "cpu", "jit_compile": False})
    assert latest_run_folder(experiment.model_copy(update={"training": there})) == finished
    named = experiment.run.model_copy(update={"name": "nobody"})
    with pytest.raises(UserError, match="there is no run nobody"):
        latest_run_folder(experiment.model_copy(update={"run": named}))


def test_reading_a_run_loads_no_tensorflow(python, finished):
    code = f"""
import sys
from pathlib import Path
from kerasseg.run import read_run
read_run(Path({str(finished)!r})).case_ids("test")
print(*{{"tensorflow", "keras"}} & set(sys.modules))
"""
    result = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
