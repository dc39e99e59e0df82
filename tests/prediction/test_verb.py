"""`kerasseg predict` as a user meets it."""

import os
import shutil
from pathlib import Path

import pytest

from kerasseg.cli import evaluate, serving
from kerasseg.errors import UserError
from tests.conftest import write_brats
from tests.test_cli import kerasseg


def test_exit_codes_and_the_table(runs, phantoms, tmp_path):
    for name in ("a", "b"):
        write_brats(tmp_path / "scans", name, phantoms[0])
    (tmp_path / "scans" / "b" / "b_t2.nii.gz").write_bytes(b"no scan")
    words = (str(runs["volumes"]), str(tmp_path / "scans"), "--output", str(tmp_path / "out"))
    wide = {**os.environ, "COLUMNS": "300"}
    done = kerasseg("predict", *words, "evaluation.overlap=0.1", env=wide)
    assert done.returncode == 1, done.stderr
    assert "1 case(s) written to" in done.stdout and "1 failed" in done.stdout
    assert "why it failed" in done.stdout and "b_t2.nii.gz" in done.stdout
    assert (tmp_path / "out" / "a.nii.gz").is_file()
    shutil.copytree(runs["volumes"], tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "best.keras").unlink()
    done = kerasseg("predict", str(tmp_path / "run"), *words[1:])
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "has no checkpoint" in done.stderr


def test_a_wrong_run_or_input_is_refused_before_tensorflow_is_started(runs, monkeypatch, tmp_path):
    for module in (evaluate, serving):
        monkeypatch.setattr(module, "with_tensorflow", lambda: pytest.fail("it was started"))
    (tmp_path / "notes.txt").touch()
    for scans, reason in (("notes.txt", "no case in"), ("gone", "gone does not exist")):
        with pytest.raises(UserError, match=f"INPUT: .*{reason}"):
            evaluate.predict([str(runs["volumes"]), str(tmp_path / scans)], tmp_path / "out")
    for name, output in (("savedmodel", "1st"), ("onnx", "models/brain")):
        with pytest.raises(UserError, match=f"--output {output}:"):
            serving.export([str(runs["volumes"])], Path(output), format=name)
    words = [str(tmp_path / "no_run"), str(tmp_path)]
    with pytest.raises(UserError, match="no_run is not there"):
        evaluate.predict(words, tmp_path / "out")
    for name in ("savedmodel", "onnx"):
        with pytest.raises(UserError, match="no_run is not there"):
            serving.export(words[:1], tmp_path / "model", format=name)
