"""`--fold` with a split file: fold 0 is a fold like any other."""

import pytest

from kerasseg.cli.train import train
from kerasseg.config.load import dump_experiment
from kerasseg.errors import UserError
from kerasseg.run import latest_run_folder
from tests.conftest import phantom_experiment


def split_options(folder, header):
    path = folder / "split.csv"
    path.write_text(f"{header}\na,0\n")
    return ["split.method=file", f"split.file={path}"]


@pytest.mark.parametrize("fold", [0, 2])
def test_a_fold_of_a_file_without_folds_is_refused(tmp_path, fold):
    with pytest.raises(UserError, match=rf"--fold {fold}: .*split.csv has a column split"):
        train(split_options(tmp_path, "case_id, Split"), fold=fold)


def test_each_fold_of_a_file_is_named_in_its_run(tmp_path):
    options = split_options(tmp_path, "case_id,fold")
    names = [phantom_experiment(tmp_path, *options, f"split.fold={k}").run_name for k in (0, 1)]
    assert names == ["tiny_fold0", "tiny_fold1"]
    for header in ("case_id,split", "\n,\ncase_id,split"):  # rows may be empty above it
        sides = split_options(tmp_path, header)
        assert phantom_experiment(tmp_path, *sides).run_name == "tiny"


def test_a_run_of_fold_0_with_its_earlier_name_can_be_resumed(tmp_path):
    experiment = phantom_experiment(tmp_path, *split_options(tmp_path, "case_id,fold"))
    folder = experiment.run.root / "tiny"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_experiment(experiment))
    assert latest_run_folder(experiment) == folder
