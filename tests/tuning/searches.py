"""Searches of a tiny experiment, and executions that train nothing."""

import json
import math
from pathlib import Path

import yaml

from kerasseg.tuning.search import Search, load_search
from kerasseg.tuning.trial_process import TrialJob, TrialOutcome
from tests.conftest import SHAPE, TINY

SPACE = {
    "optimizer.learning_rate": {"float": [1.0e-4, 1.0e-2], "log": True},
    "model.features": {"choice": [[4, 6], [6, 8]]},
}


def write_files(folder: Path, space=None, tuner="random", overrides=(), **settings) -> Path:
    """A base config and a tune file beside it; returns the tune file."""
    folder.mkdir(parents=True, exist_ok=True)
    base = {
        "run": {"name": "tiny", "root": str(folder / "full")},
        "data": {"layout": "phantom", "phantom": {"cases": 8, "shape": list(SHAPE), "seed": 5}},
        "records": {"root": str(folder / "store"), "workers": 1},
    }
    (folder / "base.yaml").write_text(yaml.safe_dump(base))
    search = {"root": str(folder / "tuning"), "name": "toy", "tuner": tuner, **settings}
    search.setdefault("baseline", False)
    file = {"base": "base.yaml", "overrides": [*TINY, *overrides]}
    file["search"] = search | {"space": SPACE if space is None else space}
    path = folder / "tune.yaml"
    path.write_text(yaml.safe_dump(file, sort_keys=False))
    return path


def make_search(folder: Path, space=None, tuner="random", overrides=(), **settings) -> Search:
    """That search, read."""
    return load_search(write_files(folder, space, tuner, overrides, **settings))


def score_of(job: TrialJob) -> float:
    """A hill in the learning rate with its top at 1e-3, higher with more features and epochs."""
    experiment = job.experiment
    distance = abs(math.log10(experiment.optimizer.learning_rate) + 3)
    features = experiment.model.features[0] if hasattr(experiment.model, "features") else 0
    return 0.5 - 0.2 * distance + 0.01 * features + 0.001 * job.last_epoch


def fake_job(job: TrialJob, environment, stop) -> TrialOutcome:
    """An execution that is done at once."""
    score = score_of(job)
    curve = [score * (epoch + 1) / job.last_epoch for epoch in range(job.last_epoch)]
    return TrialOutcome("completed", None, score, job.last_epoch, 0.01, curve, 0.5)


def records(search: Search) -> list[dict]:
    """The trials' files as another program reads them, in order."""
    found = [json.loads(p.read_text()) for p in (search.folder / "trials").glob("*.json")]
    return sorted(found, key=lambda record: record["number"])
