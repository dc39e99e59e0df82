"""`kerasseg tune-report DIR`: the page of a search, its figures and `trials.csv`."""

import json
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kerasseg import __version__
from kerasseg.files import make_folder, write_csv
from kerasseg.page import Drawing, write_figures, write_page
from kerasseg.progress import track
from kerasseg.tuning.report import parameter_figures, score_figures
from kerasseg.tuning.report.importance import (
    describe_importance,
    encode,
    parameter_importance,
    why_no_model,
)
from kerasseg.tuning.report.read_search import (
    SearchResults,
    format_range,
    format_setting,
    read_search,
)
from kerasseg.tuning.space import read_space
from kerasseg.tuning.trials import STATUSES, TrialRecord

SCORES, SETTINGS, IMPORTANCE, TRAINING = ("Scores", "Settings", "What matters", "Training and time")
_FIRST_ROUNDS = (
    " Trials that went on from another one are left out, and each score counts from the mean of "
    "the trials with as many epochs."
)
_SETTING = "search.root"
_PACKAGES = ("keras-tuner", "keras", "tensorflow", "scikit-learn", "numpy", "matplotlib")


def write_tune_report(folder: Path) -> Path:
    """Write the page of a search, `trials.csv` and `figures/` into the search's folder.

    The search may still run. Returns the path of `tune_report.html`, which contains its figures.
    Raises `UserError` if the search cannot be read or its folder cannot be written to.
    """
    search = read_search(folder)
    make_folder(folder / "figures", _SETTING)
    write_trials_csv(folder / "trials.csv", search)
    count = 5 if why_no_model(search) else 5 + min(len(search.parameters), 2)
    drawings = track(draw_search(search), count, "Drawing")
    figures = write_figures(folder / "figures", drawings, _SETTING)
    figures = {name: figures.get(name, []) for name in (SCORES, SETTINGS, IMPORTANCE, TRAINING)}
    return write_page(
        folder / "tune_report.html",
        "tune_report.html",
        _SETTING,
        filters={"value": format_setting, "duration": _format_duration},
        **_page_values(search, figures),
    )


def draw_search(search: SearchResults) -> Iterator[Drawing]:
    """Yield the figures one after the other.

    The figures of importance are left out if the trials do not allow them; `why_no_model` then
    gives the reason.
    """
    yield Drawing("score_by_trial", SCORES, score_figures.draw_score_by_trial(search))
    figure = parameter_figures.draw_parallel_coordinates(search)
    yield Drawing("parallel_coordinates", SETTINGS, figure)
    yield Drawing("score_by_value", SETTINGS, score_figures.draw_score_by_value(search))
    if not why_no_model(search):
        encoded = encode(search)
        importance = parameter_importance(encoded)
        caption = describe_importance(importance)
        caption += _FIRST_ROUNDS if len(search.planned_epochs) > 1 else ""
        figure = parameter_figures.draw_parameter_importance(importance)
        yield Drawing("parameter_importance", IMPORTANCE, figure, caption)
        if len(importance.shares) > 1:
            first, second, *_ = importance.shares
            figure = parameter_figures.draw_important_pair(search, encoded, (first, second))
            yield Drawing("important_pair", IMPORTANCE, figure)
    yield Drawing("best_curves", TRAINING, score_figures.draw_best_curves(search))
    yield Drawing("time_spent", TRAINING, score_figures.draw_time_spent(search))


def write_trials_csv(path: Path, search: SearchResults) -> None:
    """Write a row per trial with a column per setting.

    Cells are empty where a value is not known or a setting was not in use. Lists and true/false are
    JSON, times are unix seconds, and several runs are separated by spaces.
    """
    rows = [_cells(trial, search) for trial in search.trials]
    cells = [
        [json.dumps(v) if isinstance(v, bool | list | dict) else v for v in row.values()]
        for row in rows
    ]
    write_csv(path, [rows[0], *cells], _SETTING)


def _cells(trial: TrialRecord, search: SearchResults) -> dict[str, Any]:
    """Return what `trials.csv` says of a trial by the names of the columns."""
    names = ("bracket", "round", "epochs_to", "continued_from", "worker", "started", "ended")
    return {
        "number": trial.number,
        "trial_id": trial.trial_id,
        "status": trial.status,
        "score": trial.score,
        **{each.name: trial.values.get(each.name) for each in search.parameters},
        "epochs": trial.epochs,
        "minutes": round(trial.minutes, 3),
        "peak_memory_gib": trial.peak_memory_gib,
        **{name: getattr(trial, name) for name in names},
        "runs": " ".join(str(search.folder / execution.run) for execution in trial.executions),
        "reason": trial.reason,
    }


def _page_values(
    search: SearchResults, drawings: dict[str, list[dict[str, str]]]
) -> dict[str, Any]:
    best = search.best
    config = search.folder / "best.yaml"
    tried = [trial for trial in search.trials if not trial.is_baseline]  # as the screen counts
    settings = search.settings.model_dump(mode="json", exclude={"space"})
    space, tuner = search.settings.space, search.settings.tuner
    return {
        "search": search,
        "trials": search.ranked,
        "numbers": {trial.trial_id: trial.number for trial in search.trials},
        "best": best,
        "best_config": config if config.exists() else None,
        # Not those of `search.parameters`, which the baseline's values may have widened.
        "searched": {p.name: format_range(p) for p in read_space(space, "search.space", tuner)},
        "tried": len(tried),
        "counts": {s: n for s in STATUSES if (n := sum(trial.status == s for trial in tried))},
        "minutes": sum(trial.minutes for trial in search.trials),
        "minutes_failed": score_figures.minutes_of(search, "failed"),
        "warnings": _warnings(search),
        "drawings": drawings,
        "missing": {IMPORTANCE: why_no_model(search)},
        "runs_of": lambda trial: [_link(search, execution.run) for execution in trial.executions],
        "has_reasons": any(
            trial.reason or trial.status in ("failed", "stopped") for trial in search.trials
        ),
        "with_brackets": any(trial.round is not None for trial in search.trials),
        "with_workers": any(trial.worker for trial in search.trials),
        "settings": {k: format_setting(v) for k, v in settings.items()},
        "versions": {
            "kerasseg": __version__,
            **{name: metadata.version(name) for name in _PACKAGES},
        },
    }


def _warnings(search: SearchResults) -> list[str]:
    found = []
    running = search.count("running")
    unscored = sum(t.status == "completed" and not t.is_scored for t in search.trials)
    if running:
        subject = "trial is" if running == 1 else "trials are"
        found.append(f"{running} {subject} running: the page shows the search as it stands.")
    if search.best is None:
        found.append("No trial has a score, so there is no best one yet.")
    if unscored:
        subject = "trial has" if unscored == 1 else "trials have"
        found.append(
            f"{unscored} completed {subject} a score that is no finite number and counts as none."
        )
    baseline, best = search.baseline, search.best
    if search.base_is_best and baseline and best:
        found.append(
            "No trial is better than the baseline, the experiment as it was: its "
            f"{search.objective} is {baseline.score:.4g}, that of the best trial {best.score:.4g}."
        )
    return found


def _link(search: SearchResults, run: str) -> dict[str, str]:
    """Return a run's name and its address relative to the page, "" if its folder is gone."""
    found = (search.folder / run).is_dir()
    return {"name": Path(run).name, "address": quote(run) + "/" if found else ""}


def _format_duration(minutes: float) -> str:
    return f"{minutes:.1f} min" if minutes < 180 else f"{minutes / 60:.1f} h"
