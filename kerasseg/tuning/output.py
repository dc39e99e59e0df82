"""The output of a search: a line for each trial, TensorBoard's page, a table and `best.yaml`."""

import json
import statistics
import sys
import textwrap
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from tensorboard.plugins.hparams import summary_v2 as hparams

from kerasseg.config.load import dump_experiment
from kerasseg.files import write_text
from kerasseg.training.tensorboard import hparam_value, hparams_events, write_hparams
from kerasseg.tuning.report.write_tune_report import write_tune_report
from kerasseg.tuning.search import Search
from kerasseg.tuning.trials import (
    TrialRecord,
    best_record,
    read_records,
    trial_experiment,
    trial_number,
)

_TABLE_ROWS = 10


class SearchProgress:
    """Shows how a search goes on, with a bar on a terminal; used as a context around it.

    `total` is the number of planned trials, None if it is not known.
    """

    def __init__(self, search: Search, total: int | None, done: Sequence[TrialRecord]) -> None:
        self.search, self.total = search, total
        self.best: TrialRecord | None = None
        self._lock = threading.Lock()
        self._counted: set[str] = set()
        console = Console(file=sys.stdout, highlight=False, markup=False, soft_wrap=True)
        self._print = console.print
        columns = (TextColumn("Trials"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=total)
        for record in done:
            self._count(record)

    def __enter__(self) -> "SearchProgress":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def on_trial_end(self, record: TrialRecord) -> None:
        """Show how a trial went, and write it for TensorBoard beside the curves of its runs."""
        space, objective = self.search.settings.space, self.search.settings.objective
        for execution in record.executions if record.is_done and not record.is_baseline else ():
            scores = {} if execution.score is None else {objective: execution.score}
            folder = self.search.folder / execution.run / "tensorboard"
            name = f"{record.number:04d}"  # TensorBoard sorts names as text.
            write_hparams(folder, record.values, scores, name, space, record.status)
        self.show(record)

    def show(self, record: TrialRecord) -> None:
        """Show how a trial went."""
        with self._lock:
            self._count(record)
            self._print(self._line(record), style="yellow" if record.status == "failed" else None)

    def _count(self, record: TrialRecord) -> None:
        if not record.is_done or record.trial_id in self._counted:
            return
        self._counted.add(record.trial_id)
        if not record.is_baseline:
            self._progress.advance(self._task)
        candidates = [record] if self.best is None else [self.best, record]
        self.best = best_record(candidates, self.search.settings.direction)

    def _line(self, record: TrialRecord) -> str:
        of_total = f"/{self.total}" if self.total else ""
        name = "Baseline" if record.is_baseline else f"Trial {record.number}{of_total}"
        values = format_values(record.values) or "the base experiment"
        if record.continued_from is not None:
            values += f" (goes on from trial {trial_number(record.continued_from)})"
        minutes = f"{record.minutes:.1f} min"
        if record.status == "failed":
            return f"{name:<12} {values}  FAILED after {minutes}: {shorten_reason(record)}"
        if record.status == "stopped":
            return f"{name:<12} {values}  stopped; kerasseg tune again goes on with it"
        best = ""
        if self.best is not None and not record.is_baseline:
            best = f"  best {self.best.score:.4f} ({self.best.title})"
        objective = self.search.settings.objective
        return f"{name:<12} {values}  {objective} {record.score:.4f}  {minutes}{best}"


def write_hparams_config(folder: Path, space: Mapping[str, Any], metric: str) -> None:
    """Write what is searched into `folder`, on which TensorBoard is started, if it is not there."""
    if any(folder.glob("*.hparams_config")):
        return
    searched = [
        hparams.HParam(name, _domain(entry), display_name=name) for name, entry in space.items()
    ]
    measured = [hparams.Metric(metric, display_name=metric)]
    with hparams_events(folder, ".hparams_config") as write:
        write(hparams.hparams_config_pb(searched, measured), 0)


def _domain(entry: Mapping[str, Any]) -> Any:
    if "boolean" in entry:
        return hparams.Discrete([False, True], dtype=bool)
    if "int" in entry:
        return hparams.IntInterval(*map(int, entry["int"]))
    if "float" in entry:
        # TensorBoard keeps no scale; its page has a logarithmic one to choose for every column.
        return hparams.RealInterval(*map(float, entry["float"]))
    return hparams.Discrete([hparam_value(choice, entry["choice"]) for choice in entry["choice"]])


def write_results(search: Search, why_ended: str | None) -> Path | None:
    """Show the best trials, and write the page with its figures and `best.yaml`.

    `why_ended` says why the search ended before all trials were done. Returns the path of
    `best.yaml`, None if no trial was completed.
    """
    settings, folder = search.settings, search.folder
    records = read_records(folder)
    say = Console(highlight=False, markup=False, soft_wrap=True).print
    failed = [record for record in records if record.status == "failed"]
    if why_ended:
        say(f"Ended     {why_ended}")
    if failed:
        say(f"Failed    {len(failed)} trial(s), the last: {shorten_reason(failed[-1])}")
    best = best_record(records, settings.direction)
    if best is None:
        say(f"No trial was completed; what their processes said is in {folder}/processes.")
        if records:  # A chief may end before it has given any out.
            say(f"Look at   {write_tune_report(folder)}")
        return None
    Console(highlight=False).print(_table(search, records))
    path = _write_best(search, best)
    if best.is_baseline:
        score = f"{settings.objective} {best.score:.4f}"
        say(f"Best      the base as it is, {score}: no trial was better")
    else:
        values = format_values(best.values)
        say(f"Best      trial {best.number}: {settings.objective} {best.score:.4f}, {values}")
        for baseline in records:
            if baseline.is_baseline and baseline.score is not None and best.score is not None:
                gain = f"{best.score - baseline.score:+.4f} by the search"
                say(f"Baseline  {baseline.score:.4f}, the base as it is: {gain}")
    page = write_tune_report(folder)
    say(f"Figure    {folder / 'figures' / 'score_by_trial.png'}")
    say(f"Look at   {page}")
    say(f"Watch     tensorboard --logdir {folder}  (HPARAMS)")
    say(f"Next      kerasseg train --config {path}")
    return path


def _table(search: Search, records: list[TrialRecord]) -> Table:
    settings = search.settings
    scored = [record for record in records if record.is_scored]
    scored.sort(key=lambda r: r.score or 0.0, reverse=settings.direction == "max")
    shown = scored[:_TABLE_ROWS] + [r for r in scored[_TABLE_ROWS:] if r.is_baseline]
    table = Table(title=f"The best of {sum(not r.is_baseline for r in records)} trials")
    names = list(dict.fromkeys(name for record in shown for name in record.values))
    last_parts = [name.rpartition(".")[2] for name in names]
    for heading in ("trial", settings.objective):
        table.add_column(heading, justify="right", overflow="fold")
    for name, last in zip(names, last_parts, strict=True):
        table.add_column(last if last_parts.count(last) == 1 else name, overflow="fold")
    for heading in ("epochs", "minutes"):
        table.add_column(heading, justify="right", no_wrap=True)
    for record in shown:
        scores = [e.score for e in record.executions if e.score is not None]
        spread = f" ± {statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
        values = [record.values.get(name, "") for name in names]
        table.add_row(
            "base" if record.is_baseline else str(record.number),
            f"{record.score:.4f}{spread}",
            *(f"{v:.3g}" if isinstance(v, float) else format_value(v) for v in values),
            str(record.epochs),
            f"{record.minutes:.1f}",
        )
    return table


def _write_best(search: Search, best: TrialRecord) -> Path:
    """Write the base experiment with the best values, trained for as long as the base says."""
    trial, base = trial_experiment(search, best.values, best.trial_id), search.base
    own = ("epochs", "early_stopping_patience")
    training = trial.training.model_copy(
        update={name: getattr(base.training, name) for name in own}
    )
    run = base.run.model_copy(update={"name": f"{search.settings.name}_best"})
    experiment = trial.model_copy(update={"run": run, "training": training})
    name = "The base as it is" if best.is_baseline else f"Trial {best.number}"
    heading = (
        f"# {name}, the best of {search.folder}: {search.settings.objective} {best.score:.4f} "
        f"after {best.epochs} epochs.\n"
    )
    if best.values:
        heading += f"# {format_values(best.values)}\n"
    path = search.folder / "best.yaml"
    write_text(path, heading + dump_experiment(experiment), "search.root")
    return path


def shorten_reason(record: TrialRecord) -> str:
    """Return the reason of a failure in one line; TensorFlow's may be a page."""
    return textwrap.shorten(record.reason or "", 500, placeholder=" …")


def format_values(values: Mapping[str, Any]) -> str:
    """Return values as they would be typed: optimizer.name=sgd model.features=[8,16]."""
    return " ".join(f"{name}={format_value(value)}" for name, value in values.items())


def format_value(value: Any) -> str:
    """Return a value as it would be typed."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
