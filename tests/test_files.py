import errno
import json
import multiprocessing
import time
from pathlib import Path

import numpy as np
import pytest

from kerasseg.errors import UserError
from kerasseg.files import atomic_write, file_lock, spreadsheet_row, write_json


def test_a_failure_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    for error, expected in [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full.*run.root=FOLDER"),
        (PermissionError(errno.EACCES, "Permission denied"), "there is no permission"),
        (OSError(errno.EROFS, "Read-only"), "read-only"),
    ]:
        with pytest.raises(UserError, match=expected), atomic_write(path, "run.root") as temporary:
            temporary.write_text("half of the n")
            raise error
    with pytest.raises(KeyboardInterrupt), atomic_write(path, "run.root") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with atomic_write(path, "run.root") as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def write_often(path: Path, text: str) -> None:
    for _ in range(50):
        with atomic_write(path, "run.root") as temporary:
            temporary.write_text(text[: len(text) // 2])
            time.sleep(0.001)
            temporary.write_text(text)


def test_processes_that_write_one_file_never_share_a_temporary_one(tmp_path):
    path = tmp_path / "table.csv"
    context = multiprocessing.get_context("spawn")
    texts = [letter * 1000 for letter in "ab"]
    both = [context.Process(target=write_often, args=(path, text)) for text in texts]
    for process in both:
        process.start()
    while any(process.is_alive() for process in both):
        assert not path.exists() or path.read_text() in texts
    assert [process.exitcode for process in both] == [0, 0]
    assert list(tmp_path.iterdir()) == [path]


def write_and_hang(path: Path) -> None:
    with atomic_write(path, "run.root"):
        time.sleep(60)


def test_temporary_files_of_killed_processes_go_and_those_of_living_ones_stay(tmp_path):
    path = tmp_path / "table.csv"
    process = multiprocessing.get_context("spawn").Process(target=write_and_hang, args=(path,))
    process.start()
    while not list(tmp_path.iterdir()):
        time.sleep(0.05)
    (theirs,) = tmp_path.iterdir()
    assert f"-{process.pid}-" in theirs.name and theirs.suffix == ".csv"
    time.sleep(0.1)  # the file is locked a moment after it is made
    for is_alive in (True, False):
        if not is_alive:
            process.kill()
            process.join()
        with atomic_write(path, "run.root") as temporary:
            temporary.write_text("new")
        assert theirs.exists() == is_alive


def test_a_lock_may_refuse_instead_of_waiting(tmp_path):
    lock = tmp_path / "new" / ".lock"
    with (
        file_lock(lock, "searches", "search.root"),
        pytest.raises(
            UserError, match=r"new: it goes on already \(process \d+ on .* searches since"
        ),
        file_lock(lock, "searches", "search.root", wait=0, refusal="it goes on already"),
    ):
        pass
    with file_lock(lock, "searches", "search.root", wait=0):
        assert "searches" in lock.read_text()
    assert lock.read_text() == ""


def test_no_cell_of_a_table_is_a_formula():
    names = ["=HYPERLINK(1)", "+1+cmd", "-2+3", "@SUM(A1)", "\t=1", "\r=1"]
    assert spreadsheet_row(names) == [f"'{name}" for name in names]
    others = ["BraTS-GLI-1", "-1.5", "+3", "-inf", "nan", "", -2.5, None, 7, "1=2"]
    assert spreadsheet_row(others) == others


def test_a_number_that_does_not_exist_is_null_in_json(tmp_path):
    values = {"a": [float("nan"), 1.5, np.float64("nan")], "b": {"c": (None, "NaN", 2)}}
    write_json(tmp_path / "a.json", values, "x")
    found = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
    assert found == {"a": [None, 1.5, None], "b": {"c": [None, "NaN", 2]}}
