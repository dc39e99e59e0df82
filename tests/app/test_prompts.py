"""A SAM on the page is asked by a point or a box, and answers from a stored embedding."""

import copy
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from kerasseg.app import jobs
from kerasseg.app.prompts import Prompter, takes_prompts
from kerasseg.app.runs import Choices, OfferedRun, Runs
from kerasseg.app.sessions import Session
from kerasseg.config.load import dump_experiment, load_experiment
from kerasseg.errors import UserError
from kerasseg.models.sam.network import with_prompt
from kerasseg.prediction.model import Model, load_run
from kerasseg.prediction.prediction import array_case
from kerasseg.progress import report
from kerasseg.run import read_run
from tests.run_folders import write_run

BOX = [(5, 4, 3), (5, 12, 15)]


@pytest.fixture
def scan(tmp_path, phantoms):
    return Session("key", tmp_path / "session").add_scan(
        array_case(phantoms[0][0][..., :1], (1.0, 1.0, 1.0), ("flair",))
    )


def expected(run, scan, kind, low, high):
    """The probabilities (h, w) that the whole network with a prompt gives of slice 5."""
    sam = run.experiment.model.sam.model_copy(
        update={"prompt": kind, "box_margin": 0.0, "points": 1}
    )
    network = with_prompt(
        run.predictor.network, run.experiment.model.model_copy(update={"sam": sam})
    )
    image = run.prepare(scan.case).image[5:6]
    asked = np.zeros((*image.shape[:3], 1), np.float32)
    asked[0, low[0] : high[0] + 1, low[1] : high[1] + 1] = 1
    return np.asarray(network([image, asked]))[0, ..., 0]


def test_answers_are_those_of_the_whole_network(app_runs, scan, tmp_path):
    run = load_run(app_runs["sam"])
    prompter, settings = Prompter(run), run.predictor.settings
    cases = {"box": (BOX, (4, 3), (12, 15)), "points": ([(5, 9, 8)], (9, 8), (9, 8))}
    for kind, (corners, low, high) in cases.items():
        probabilities = expected(run, scan, kind, low, high)
        threshold = float(np.median(probabilities))  # so that both answers are there
        run.predictor.settings = settings.model_copy(update={"threshold": threshold})
        found = prompter.answer(scan, 4, corners)
        sure = np.abs(probabilities - threshold) > 1e-6
        assert np.array_equal(found[sure], (probabilities >= threshold)[sure])
        assert np.array_equal(prompter.answer(scan, 4, corners[::-1]), found)
        # From now on only the decoder is asked.
        prompter._encode = None
    assert [path.name for path in scan.folder.glob("embedding*")] == ["embedding_4_5.npy"]


def test_points_outside_and_boxes_across_slices_are_refused(app_runs, scan):
    prompter = Prompter(load_run(app_runs["sam"]))
    for corners in ([(5, 99, 0)], [(-1, 0, 0)], [(5, 0, 0), (6, 3, 3)]):
        with pytest.raises(UserError, match="on one of its axial slices"):
            prompter.answer(scan, 4, corners)


def test_progress_begins_with_the_check_and_never_goes_back(app_runs, scan, tmp_path):
    """The run gets its boxes of another run, so the scan is prepared and predicted twice."""

    class Watched(jobs.Job):
        def __setattr__(self, name, value):
            if name == "progress":
                seen.append(value)
            super().__setattr__(name, value)

    def four_windows(volume):
        for done in range(4):
            report(done, 4)
        return np.zeros((*volume.shape[:3], 1), np.float32)

    run, seen = load_run(app_runs["sam"]), []
    run.predictor.probabilities = four_windows
    run.predictor.box_run = (run, copy.copy(run.predictor))
    run.predictor.boxes_from = run.folder
    runs = SimpleNamespace(model=lambda number, choices: Model([run]))
    offered = OfferedRun("sam", run.folder, run.experiment)
    job = Watched("key", scan, 0, offered, Choices(), tmp_path / "job")
    jobs._predict(job, runs, float("inf"))
    assert seen == sorted(seen)
    windows = [0.05 + 0.9 * done / 8 for done in range(8)]
    assert sorted(set(seen)) == pytest.approx([0, 0.05 / 3, 0.1 / 3, *windows, 1])


def test_sam_of_any_prompt_is_loaded_without_it(app_runs, tmp_path):
    def changed(*settings):
        overrides = [f"model.sam.{setting}" for setting in settings]
        return load_experiment(app_runs["sam"] / "config.yaml", overrides)

    boxes = write_run(tmp_path / "boxes", changed("prompt=box", "box_margin=5"))
    loaded = Runs([boxes])._load(0).experiment.model.sam
    assert loaded.prompt == "none" and not loaded.is_changed("box_margin")
    with pytest.raises(UserError, match=r"set model\.sam\.prompt=none"):
        load_run(boxes)
    assert read_run(boxes, ["model.sam.prompt=box"]).experiment.model.sam.box_margin == 5
    with pytest.raises(UserError, match="box_margin is for"):
        read_run(boxes, ["model.sam.prompt=none", "model.sam.box_margin=7"])
    points = shutil.copytree(app_runs["sam"], tmp_path / "points")
    config = dump_experiment(changed("prompt=points", "points=3"))
    (points / "config.yaml").write_text(config)
    for prompt in ("none", "box"):
        assert read_run(points, [f"model.sam.prompt={prompt}"]).experiment.model.sam.points == 1


def test_page_asks_a_sam_and_no_other(client, app_runs):
    runs = client.ask("GET", "/api/state")["runs"]
    assert [run["name"] for run in runs if run["prompts"]] == ["sam"]
    assert not takes_prompts(read_run(app_runs["slices"]).experiment)
    scan = client.ask("POST", "/api/example")
    at, corners = f"/api/scans/{scan['id']}/prompt", [[30, 20, 20], [30, 50, 50]]
    status, _, bits = client.send("POST", at, {"run": 4, "corners": corners})
    assert status == 200 and len(bits) == scan["shape"][1] * scan["shape"][2] // 8
    assert "no points and boxes" in client.refused("POST", at, {"run": 0, "corners": corners})
    assert "axial" in client.refused("POST", at, {"run": 4, "corners": [[99, 0, 0]]})
