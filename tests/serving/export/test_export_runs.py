"""`kerasseg export` and what it refuses."""

import errno
import shutil
import sys

import pytest

from kerasseg.config.load import dump_experiment, load_experiment
from kerasseg.errors import UserError
from kerasseg.serving.export import export_runs
from kerasseg.serving.protocol import serving_apis
from kerasseg.serving.signatures import ExportedModel
from tests.test_cli import kerasseg


def changed(run, folder, *overrides):
    """A copy of a run with other settings."""
    shutil.copytree(run, folder)
    experiment = load_experiment(folder / "config.yaml", overrides)
    (folder / "config.yaml").write_text(dump_experiment(experiment))
    return folder


def test_versions_count_up_and_stand_whole(runs, tmp_path):
    output = tmp_path / "models" / "brain"
    (output / "7").mkdir(parents=True)
    done = kerasseg("export", str(runs["other"]), "--output", str(output), "--no-gzip")
    assert done.returncode == 0, done.stderr
    assert f"{output / '8'}: ready to be served" in done.stdout
    assert {path.name for path in output.iterdir()} == {"7", "8"}
    files = {str(path.relative_to(output / "8")) for path in output.rglob("8/**/*")}
    assert files >= {"saved_model.pb", "assets.extra/tf_serving_warmup_requests"}
    assert (output.stat().st_mode & 0o777) == ((output / "8").stat().st_mode & 0o777)
    assert 'name: "brain"' in (tmp_path / "models" / "models.config").read_text()
    done = kerasseg("export", "--output", str(output), "evaluation.flips=[width]")
    assert done.returncode == 2 and "needs a run folder" in done.stderr


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_full_disk_leaves_nothing(runs, tmp_path, monkeypatch, number):
    def save(_, folder):
        (folder / "variables").write_bytes(b"half")
        raise OSError(number, "no")

    monkeypatch.setattr(ExportedModel, "save", save)
    output = tmp_path / "models" / "brain"
    with pytest.raises(UserError, match=r"Writing .*brain failed: (the disk|there is no perm)"):
        export_runs([runs["other"]], output)
    assert not output.exists() and not (tmp_path / "models" / "models.config").exists()
    (output / "1").mkdir(parents=True)
    with pytest.raises(UserError, match="Writing"):
        export_runs([runs["other"]], output)
    assert [path.name for path in output.iterdir()] == ["1"]


def test_without_the_serving_package_nothing_is_written(runs, tmp_path, monkeypatch):
    serving_apis.cache_clear()
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis.prediction_log_pb2", None)
    with pytest.raises(UserError, match=r"tensorflow_serving.* is missing.*kerasseg\[serving\]"):
        export_runs([runs["other"]], tmp_path / "models" / "brain")
    assert not (tmp_path / "models").exists()


def test_an_output_that_is_none(runs, tmp_path):
    (tmp_path / "file").touch()
    for output, sentence in {
        tmp_path / "file": "is a file",
        tmp_path / "file" / "brain": "is a file",
        tmp_path / "models" / "1": "must start with a letter",
        tmp_path / "models" / "my brain": "must start with a letter",
        runs["other"]: "is a SavedModel or a run itself",
    }.items():
        with pytest.raises(UserError, match=sentence):
            export_runs([runs["other"]], output)
    assert {path.name for path in tmp_path.iterdir()} == {"file"}


def test_runs_that_do_not_agree(runs, tmp_path):
    output = tmp_path / "models" / "brain"
    with pytest.raises(UserError, match=r"needs runs of one model\.target"):
        export_runs([runs["other"], runs["labels"]], output)
    with pytest.raises(UserError, match=r"data.spacing=null, but .*thick.* 3.0, 1.0, 1.0"):
        export_runs([runs["other"], runs["thick"]], output)
    swapped = changed(runs["other"], tmp_path / "swapped", "data.modalities=[t1,flair,t1ce,t2]")
    with pytest.raises(UserError, match=r"data.modalities=flair, t1, .* t1, flair"):
        export_runs([runs["other"], swapped], output)
    brats = changed(runs["other"], tmp_path / "brats", "data.layout=brats_nifti", "data.root=gone")
    with pytest.raises(UserError, match=r"writes the ids 0, 1, 2, 3, .*0, 1, 2, 4 .*--labels"):
        export_runs([runs["other"], brats], output)
    wide = changed(
        runs["other"],
        tmp_path / "wide",
        "data.layout=brats_nifti",
        "data.root=gone",
        "data.label_map={0: 0, 1: 1, 2: 2, 500: 3}",
    )
    with pytest.raises(UserError, match=r"ids 0, 1, 2, 500, .*one byte"):
        export_runs([wide], output)
    with pytest.raises(UserError, match=r"make masks of probabilities in different ways"):
        export_runs([runs["cleaned"], runs["other"]], output, labels="brats")
    assert not output.exists()
