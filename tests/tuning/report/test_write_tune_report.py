"""The page of a search of every sort."""

import csv
import io
import json
import re
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kerasseg.tuning.report.write_tune_report import write_tune_report
from tests.test_cli import run_here
from tests.tuning.report.searches import (
    SPACE,
    a_failed_trial,
    a_trial,
    planted_trials,
    write_search,
)

FIGURES = {
    "score_by_trial",
    "parallel_coordinates",
    "score_by_value",
    "best_curves",
    "time_spent",
}


def _rows(page: str) -> list[list[str]]:
    """Texts of the cells of the table of trials."""
    body = re.search(r'id="trial-table">.*?<tbody>(.*?)</tbody>', page, re.S)
    assert body
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", body[1], re.S)
    return [
        [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, re.S)]
        for row in rows
    ]


def _pictures(page: str) -> dict[str, np.ndarray]:
    found = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)"', page)
    return {
        name.replace(" ", "_"): np.asarray(Image.open(io.BytesIO(b64decode(text))).convert("RGB"))
        for text, name in found
    }


def test_a_whole_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kerasseg.tuning.report.importance._RESAMPLES", 10)
    long = "Traceback:\n  " + "deep " * 40 + "<script>alert(1)</script>"
    trials = [*planted_trials(12), a_trial(0, 0.6), a_failed_trial(13, long)]
    trials[12]["values"]["optimizer.learning_rate"] = 0.1  # the base is outside of the space
    folder = write_search(tmp_path / "s", trials)
    (folder / "best.yaml").write_text("")
    page = write_tune_report(folder)
    assert page == folder / "tune_report.html"
    text = page.read_text(encoding="utf-8")
    assert "http:" not in text and "https:" not in text
    assert all(source.startswith("data:") for source in re.findall(r'src="([^"]*)"', text))
    assert "<link" not in text and "@import" not in text
    pictures = _pictures(text)
    assert set(pictures) == FIGURES | {"parameter_importance", "important_pair"}
    for name, picture in pictures.items():
        assert picture.std() > 8, name
        saved = np.asarray(Image.open(folder / "figures" / f"{name}.png").convert("RGB"))
        assert np.array_equal(saved, picture)
    assert "Summary of 13 trials and the baseline" in text and "12 completed, 1 failed" in text
    rows = _rows(text)
    assert len(rows) == 14
    scores = [float(row[2]) for row in rows[:-1]]
    assert scores == sorted(scores, reverse=True)
    assert rows[-1][1:3] == ["failed", "\N{EN DASH}"]
    assert sum(row[0] == "baseline" for row in rows) == 1
    assert text.count('<tr class="baseline">') == 1
    assert text.count('<tr class="best">') == 1
    assert 'href="runs/trial_3/"' in text
    # A reason in full, and as text.
    assert "deep " * 40 + "&lt;script&gt;alert(1)&lt;/script&gt;</dd>" in text
    assert "<script>alert" not in text
    assert f"kerasseg train --config {folder}/best.yaml" in text
    assert "Estimated from 12 trials" in text
    assert "keras-tuner" in text and "random" in text
    best = max(trials[:12], key=lambda trial: trial["score"])
    rate = best["values"]["optimizer.learning_rate"]
    assert f"<b>{rate:.4g}</b>" in text and "<td>1e-05 to 0.01, logarithmic</td>" in text


@pytest.mark.usefixtures("figures_not_rendered")
def test_the_csv_is_true(tmp_path: Path) -> None:
    trials = [a_trial(0, 0.6), a_trial(1, 0.5), a_failed_trial(2, "no\nmemory, at all")]
    trials += [a_trial(3, float("nan"))]
    folder = write_search(tmp_path / "s", trials)
    write_tune_report(folder)
    with (folder / "trials.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["number"] for row in rows] == ["0", "1", "2", "3"]
    for row, trial in zip(rows, trials, strict=True):
        assert row["trial_id"] == trial["trial_id"] and row["status"] == trial["status"]
        values = trial["values"]
        for name in SPACE:
            if name not in values:
                assert row[name] == ""
            elif isinstance(values[name], str):
                assert row[name] == values[name]
            else:
                assert json.loads(row[name]) == values[name]
        assert float(row["started"]) == trial["started"]
    assert float(rows[1]["score"]) == 0.5 and rows[2]["score"] == rows[3]["score"] == ""
    assert rows[2]["reason"] == "no\nmemory, at all"
    assert float(rows[1]["minutes"]) == 3 and rows[1]["epochs"] == "4"
    assert rows[1]["runs"] == str(folder / "runs/trial_1")
    assert rows[2]["peak_memory_gib"] == ""


def _only_running() -> list[dict[str, Any]]:
    return [a_trial(1, None, status="running", ended=None, executions=[], values={})]


@pytest.mark.parametrize(
    ("trials", "words"),
    [
        (_only_running(), ["1 trial is running", "No trial has a score", "0 completed trials"]),
        ([a_failed_trial(1), a_failed_trial(2)], ["No trial has a score", "2 failed"]),
        ([a_trial(0, 0.5)], ["No trial has a score", "0 trials and the baseline"]),
        ([a_trial(1, 0.5)], ["Best val_dice", "1 completed trials of different settings"]),
        ([a_trial(1, float("nan"))], ["1 completed trial has a score that is no finite number"]),
        (
            [a_trial(0, 0.9), a_trial(1, 0.5), a_trial(2, float("inf"))],
            ["No trial is better than the baseline", "its val_dice is 0.9"],
        ),
        ([a_trial(1, 0.4, ended=None, worker=None)], ["Best val_dice"]),
    ],
)
@pytest.mark.usefixtures("figures_not_rendered")
def test_a_search_of_every_sort(
    tmp_path: Path, trials: list[dict[str, Any]], words: list[str]
) -> None:
    text = write_tune_report(write_search(tmp_path / "s", trials)).read_text(encoding="utf-8")
    assert set(_pictures(text)) == FIGURES
    assert len(_rows(text)) == len(trials)
    for expected in words:
        assert expected in text
    assert "kerasseg train --config" in text or "No trial has a score" in text


@pytest.mark.usefixtures("figures_not_rendered")
def test_low_scores_first_where_low_is_good(tmp_path: Path) -> None:
    trials = [a_trial(0, 0.2), a_trial(1, 0.5), a_trial(2, 0.3)]
    folder = write_search(tmp_path / "s", trials, direction="min", objective="val_loss")
    text = write_tune_report(folder).read_text(encoding="utf-8")
    assert [row[0] for row in _rows(text)] == ["baseline", "2", "1"]
    assert "No trial is better than the baseline" in text
    assert "<b>0.2</b><span>baseline, " in text and '<tr class="best">\n<td data-value="0">' in text
    assert "Values of the best trial, which is worse than the base" in text
    assert "Train the base as it is" in text, "that is what best.yaml holds"


@pytest.mark.usefixtures("figures_not_rendered")
def test_rounds_of_hyperband(tmp_path: Path) -> None:
    first = [a_trial(n, n / 20, bracket=1, round=0, epochs_to=2) for n in range(1, 5)]
    again = a_trial(5, 0.7, bracket=1, round=1, epochs_to=6, continued_from="0004")
    text = write_tune_report(write_search(tmp_path / "s", [*first, again])).read_text("utf-8")
    row = _rows(text)[0]
    assert row[0] == "5" and "1, 1" in row and row[row.index("1, 1") + 1] == "4"
    assert "Trials with more epochs had more time to be good" in text


def test_the_command_needs_no_tensorflow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_search(tmp_path / "s", [a_trial(1, 0.5)])
    program = (
        "import sys; from kerasseg.cli.main import main\n"
        "try: main()\n"
        "finally: print('tensorflow' in sys.modules, 'keras' in sys.modules)"
    )
    command = [sys.executable, "-c", program, "tune-report", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"Look at {folder}/tune_report.html", "False False"]
    assert run_here("tune-report", str(tmp_path / "none")) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / 'none'}: there is no such folder")
    assert len(said.splitlines()) == 1
