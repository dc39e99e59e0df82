"""`kerasseg tune-report DIR`: the page of a search."""

from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2

from kerasseg import __version__
from kerasseg.errors import storage_error
from kerasseg.evaluation import page as evaluation_page
from kerasseg.evaluation.page import environment, write_figures
from kerasseg.progress import track
from kerasseg.tuning.record import STATUSES
from kerasseg.tuning.report.draw_search import (
    IMPORTANCE,
    SCORES,
    SETTINGS,
    TRAINING,
    count_drawings,
    draw_search,
)
from kerasseg.tuning.report.figures.time_spent import minutes_of
from kerasseg.tuning.report.read_search import read_search
from kerasseg.tuning.report.score_model import why_no_model
from kerasseg.tuning.report.search import Search
from kerasseg.tuning.report.trials_csv import write_trials_csv
from kerasseg.tuning.report.words import range_in_words, value_in_words
from kerasseg.write_aside import write_aside

_SETTING = "search.root"
_PACKAGES = ("keras-tuner", "keras", "tensorflow", "scikit-learn", "numpy", "matplotlib")


def write_tune_report(folder: Path) -> Path:
    """Write `tune_report.html`, which holds its figures, `trials.csv` and `figures/` into a
    search's folder and return the page. The search may still run.

    Raises `UserError` as `read_search` does, and where the folder cannot be written to.
    """
    search = read_search(folder)
    try:
        (folder / "figures").mkdir(exist_ok=True)
    except OSError as error:
        raise storage_error(error, f"Making {folder / 'figures'}", _SETTING) from error
    write_trials_csv(folder / "trials.csv", search)
    drawings = track(draw_search(search), count_drawings(search), "Drawing")
    figures = write_figures(folder / "figures", drawings, _SETTING)
    figures = {name: figures.get(name, []) for name in (SCORES, SETTINGS, IMPORTANCE, TRAINING)}
    page = _environment().get_template("tune_report.html").render(_words(search, figures))
    with write_aside(folder / "tune_report.html", _SETTING) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return folder / "tune_report.html"


def _environment() -> jinja2.Environment:
    """Of this folder's template and of the style that it shares with evaluations."""
    found = environment()
    folders = (Path(__file__).parent, Path(evaluation_page.__file__).parent)
    found.loader = jinja2.FileSystemLoader([str(folder) for folder in folders])
    found.filters["value"] = value_in_words
    found.filters["duration"] = _duration
    return found


def _words(search: Search, drawings: dict[str, list[dict[str, str]]]) -> dict[str, Any]:
    best = search.best
    config = search.folder / "best.yaml"
    settings = search.settings.model_dump(mode="json", exclude={"space"})
    return {
        "search": search,
        "trials": search.ranked,
        "best": best,
        "best_config": config if config.exists() else None,
        "counts": {status: search.count(status) for status in STATUSES if search.count(status)},
        "minutes": sum(trial.minutes for trial in search.trials),
        "minutes_failed": minutes_of(search, "failed"),
        "warnings": _warnings(search),
        "drawings": drawings,
        "missing": {IMPORTANCE: why_no_model(search)},
        "searched": range_in_words,
        "run_of": lambda trial: [_run(search, execution.run) for execution in trial.executions],
        "has_reasons": any(
            trial.reason or trial.status in ("failed", "stopped") for trial in search.trials
        ),
        "with_brackets": any(trial.round is not None for trial in search.trials),
        "with_workers": any(trial.worker for trial in search.trials),
        "settings": {k: value_in_words(v) for k, v in settings.items()},
        "versions": {
            "kerasseg": __version__,
            **{name: metadata.version(name) for name in _PACKAGES},
        },
    }


def _warnings(search: Search) -> list[str]:
    found = []
    running = search.count("running")
    unscored = sum(t.status == "completed" and not t.is_scored for t in search.trials)
    if running:
        words = "trial is" if running == 1 else "trials are"
        found.append(f"{running} {words} running: the page shows the search as it stands.")
    if search.best is None:
        found.append("No trial has a score, so there is no best one yet.")
    if unscored:
        words = "trial has" if unscored == 1 else "trials have"
        found.append(
            f"{unscored} completed {words} a score that is no finite number and counts as none."
        )
    baseline, best = search.baseline, search.best
    if (
        baseline
        and best
        and baseline.is_scored
        and search.ranked.index(baseline) < search.ranked.index(best)
    ):
        found.append(
            "No trial is better than the baseline, the experiment as it was: its "
            f"{search.objective} is {baseline.score:.4g}, that of the best trial {best.score:.4g}."
        )
    return found


def _run(search: Search, run: str) -> dict[str, str]:
    """Name and address of a run folder, the address relative to the page; none if it is gone."""
    found = (search.folder / run).is_dir()
    return {"name": Path(run).name, "address": quote(run) + "/" if found else ""}


def _duration(minutes: float) -> str:
    return f"{minutes:.1f} min" if minutes < 180 else f"{minutes / 60:.1f} h"
