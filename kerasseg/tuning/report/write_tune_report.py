"""`kerasseg tune-report DIR`: the page of a search.

The figures of a search's page, as far as its trials allow.

`trials.csv`: every trial, by its number.
"""

import csv
import json
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2

from kerasseg import __version__
from kerasseg.errors import storage_error
from kerasseg.files import atomic_write
from kerasseg.page import Drawing, environment, write_figures
from kerasseg.progress import track
from kerasseg.tuning.report.figure_parts import range_in_words, value_in_words
from kerasseg.tuning.report.importance import (
    encode,
    importance_in_words,
    parameter_importance,
    why_no_model,
)
from kerasseg.tuning.report.parameter_figures import (
    draw_important_pair,
    draw_parallel_coordinates,
    draw_parameter_importance,
)
from kerasseg.tuning.report.read_search import Search, read_search
from kerasseg.tuning.report.score_figures import (
    draw_best_curves,
    draw_score_by_trial,
    draw_score_by_value,
    draw_time_spent,
    minutes_of,
)
from kerasseg.tuning.trials import STATUSES, TrialRecord

SCORES, SETTINGS, IMPORTANCE, TRAINING = (
    "Scores",
    "Settings",
    "What matters",
    "Training and time",
)


_FIRST_ROUNDS = (
    " Trials that went on from another one are left out, and each score counts from the mean of "
    "the trials with as many epochs."
)


def count_drawings(search: Search) -> int:
    """How many `draw_search` yields."""
    with_model = 0 if why_no_model(search) else min(len(search.parameters), 2)
    return 5 + with_model


def draw_search(search: Search) -> Iterator[Drawing]:
    """One after the other. Those that need a score or a model of it are left out where the trials
    do not give one; `why_no_model` says so in words."""
    yield Drawing(
        "score_by_trial",
        SCORES,
        "Crosses along the bottom ended without a score. A score far worse than the others is "
        "drawn at the edge, here and below.",
        draw_score_by_trial(search),
    )
    yield Drawing(
        "parallel_coordinates",
        SETTINGS,
        "One line is one trial, the best is thick; failed trials are dashed. Lines through one "
        "choice are drawn a little apart.",
        draw_parallel_coordinates(search),
    )
    yield Drawing(
        "score_by_value",
        SETTINGS,
        "The best trial is ringed, the baseline a white diamond; crosses ended without a score: "
        "red failed, orange was stopped; a grey arrow still runs. "
        "The other settings differ from dot to dot as well.",
        draw_score_by_value(search),
    )
    if not why_no_model(search):
        encoded = encode(search)
        importance = parameter_importance(encoded)
        yield Drawing(
            "parameter_importance",
            IMPORTANCE,
            importance_in_words(importance)
            + (_FIRST_ROUNDS if len(search.planned_epochs) > 1 else ""),
            draw_parameter_importance(importance),
        )
        if len(importance.shares) > 1:
            first, second, *_ = importance.shares
            yield Drawing(
                "important_pair",
                IMPORTANCE,
                "The ground is what the random forest guesses, averaged over all other settings; "
                "dots are trials in the same colours. Where there is no dot it is only a guess.",
                draw_important_pair(search, encoded, (first, second)),
            )
    yield Drawing(
        "best_curves",
        TRAINING,
        "Grey: all other trials.",
        draw_best_curves(search),
    )
    yield Drawing(
        "time_spent",
        TRAINING,
        "Numbers are those of the trials. A gap is a worker that waited or prepared.",
        draw_time_spent(search),
    )


_BEFORE = ("number", "trial_id", "status", "score")
_AFTER = (
    "epochs",
    "minutes",
    "peak_memory_gib",
    "bracket",
    "round",
    "epochs_to",
    "continued_from",
    "worker",
    "started",
    "ended",
    "runs",
    "reason",
)


def write_trials_csv(path: Path, search: Search) -> None:
    """A row per trial, a column per setting. What is not known or not in use is empty; lists and
    true/false are JSON, times unix seconds, several runs are parted by spaces."""
    names = [parameter.name for parameter in search.parameters]
    with (
        atomic_write(path, "search.root") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow([*_BEFORE, *names, *_AFTER])
        for trial in search.trials:
            before = [trial.number, trial.trial_id, trial.status, _cell(trial.score)]
            values = [_cell(trial.values.get(name)) for name in names]
            writer.writerow([*before, *values, *_after(trial, search.folder)])


def _after(trial: TrialRecord, folder: Path) -> list[Any]:
    cells = [
        trial.epochs,
        round(trial.minutes, 3),
        trial.peak_memory_gib,
        trial.bracket,
        trial.round,
        trial.epochs_to,
        trial.continued_from,
        trial.worker,
        trial.started,
        trial.ended,
        " ".join(str(folder / execution.run) for execution in trial.executions),
        trial.reason,
    ]
    return [_cell(cell) for cell in cells]


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, bool | list | dict) else value


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
    with atomic_write(folder / "tune_report.html", _SETTING) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return folder / "tune_report.html"


def _environment() -> jinja2.Environment:
    found = environment()
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
