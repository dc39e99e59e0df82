"""RUN [RUN…] INPUT [SECTION.KEY=VALUE…], and the file that a prediction is saved as."""

import numpy as np
import pytest

from kerasseg.errors import UserError
from kerasseg.prediction.predict import split_arguments
from kerasseg.prediction.predict_files import claim_folder
from kerasseg.prediction.prediction import Prediction, array_case


def test_runs_inputs_and_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "scans"):
        (tmp_path / name).mkdir()
    for name in ("x.png", "y.png"):
        (tmp_path / name).touch()
    found = split_arguments(["a", "b", "evaluation.flips=[width]", "scans"])
    assert [str(p) for p in found.runs] == ["a", "b"]
    assert [str(p) for p in found.inputs] == ["scans"]
    assert found.settings == ("evaluation.flips=[width]",)
    found = split_arguments(["a", "x.png", "y.png"])
    assert [str(p) for p in found.inputs] == ["x.png", "y.png"]
    assert [str(p) for p in found.runs] == ["a"]
    with pytest.raises(UserError, match="needs a run folder and what it is to predict"):
        split_arguments(["a"])
    with pytest.raises(UserError, match="nowhere does not exist"):
        split_arguments(["a", "nowhere"])


def test_a_label_is_saved_as_nifti_and_under_no_other_name(tmp_path):
    case = array_case(np.ones((2, 3, 4, 1), np.float32), (1, 1, 1), ("t1",))
    label = np.ones((2, 3, 4), np.uint8)
    prediction = Prediction(case, "binary", label, label[..., np.newaxis].astype(np.float32))
    with pytest.raises(UserError, match=r"x\.foo: a label is written as NIfTI: .* ends in .nii.gz"):
        prediction.save(tmp_path / "x.foo")
    assert not list(tmp_path.iterdir())
    prediction.save(tmp_path / "x.nii")
    assert (tmp_path / "x.nii").stat().st_size > 300


def test_a_folder_in_which_every_case_failed_is_not_taken(tmp_path):
    first, other = (
        {"networks": [name], "combine": "mean", "settings": [], "labels": None, "runs": [name]}
        | {"postprocessing": []}
        for name in ("a", "b")
    )
    label = tmp_path / "case.nii.gz"
    claim_folder(tmp_path, first, [label], overwrite=False)
    claim_folder(tmp_path, other, [label], overwrite=False)
    label.touch()
    claim_folder(tmp_path, other, [label], overwrite=False)
    with pytest.raises(UserError, match=r"made otherwise \(with runs \['b'\]\)"):
        claim_folder(tmp_path, first, [label], overwrite=False)
    (tmp_path / "predictions.json").unlink()
    with pytest.raises(UserError, match=r"case.nii.gz is there, and no .* says what made it: "):
        claim_folder(tmp_path, first, [label], overwrite=False)
    claim_folder(tmp_path, first, [label], overwrite=True)
