"""The end of a search: a table, a figure, the best config, and what to type next.

What is said while a search goes on: a line per trial, and a bar.
"""

import json
import statistics
import sys
import textwrap
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from kerasseg.config.load import dump_experiment
from kerasseg.config.tuning import SearchSettings
from kerasseg.files import atomic_write
from kerasseg.tuning.report.write_tune_report import write_tune_report
from kerasseg.tuning.search import Search
from kerasseg.tuning.trials import TrialRecord, best_record, read_records, trial_experiment

_MOST_CHARACTERS = 500


class SearchProgress:
    """Used as a context around the search. `total`: trials that are planned; None if not known."""

    def __init__(self, settings: SearchSettings, total: int | None, done: list[TrialRecord]):
        self.settings = settings
        self.best: TrialRecord | None = None
        self.total = total
        self._lock = threading.Lock()
        self._seen: set[str] = set()
        columns = (TextColumn("Trials"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        console = Console(file=sys.stdout, highlight=False, markup=False, soft_wrap=True)
        self._say = console.print
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=total)
        for record in done:
            self._take(record)

    def __enter__(self) -> "SearchProgress":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def ended(self, record: TrialRecord) -> None:
        """Say how a trial went."""
        with self._lock:
            self._take(record)
            self._say(self._line(record), style="yellow" if record.status == "failed" else None)

    def _take(self, record: TrialRecord) -> None:
        if not record.is_done or record.trial_id in self._seen:
            return
        self._seen.add(record.trial_id)
        if record.number:
            self._progress.advance(self._task)
        if record.number and record.score is not None and record.status == "completed":
            sign = 1 if self.settings.direction == "max" else -1
            if self.best is None or sign * record.score > sign * (self.best.score or 0.0):
                self.best = record

    def _line(self, record: TrialRecord) -> str:
        of = f"/{self.total}" if self.total else ""
        name = f"Trial {record.number}{of}" if record.number else "Baseline"
        values = show_values(record.values) or "the base experiment"
        if record.continued_from is not None:
            values += f" (goes on from trial {int(record.continued_from) + 1})"
        minutes = f"{record.minutes:.1f} min"
        if record.status == "failed":
            return f"{name:<12} {values}  FAILED after {minutes}: {in_short(record)}"
        if record.status == "stopped":
            return f"{name:<12} {values}  stopped; python tune.py again goes on with it"
        best = ""
        if self.best is not None and record.number:
            best = f"  best {self.best.score:.4f} (trial {self.best.number})"
        return f"{name:<12} {values}  {self.settings.objective} {record.score:.4f}  {minutes}{best}"


def in_short(record: TrialRecord) -> str:
    """The reason of a failure in one line; TensorFlow's may be a page."""
    return textwrap.shorten(record.reason or "", _MOST_CHARACTERS, placeholder=" …")


def show_values(values: Mapping[str, Any]) -> str:
    """'optimizer.learning_rate=0.001 model.features=[8,16]'."""
    return " ".join(f"{name}={show_value(value)}" for name, value in values.items())


def show_value(value: Any) -> str:
    """As it would be typed."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


_ROWS = 10


def conclude(search: Search, why: str | None) -> Path | None:
    """Show the best trials, write the page with its figures and `best.yaml`, and return the last.

    None if no trial was completed. `why`: why the search ended before all trials were done.
    """
    settings, folder = search.settings, search.folder
    records = read_records(folder)
    say = Console(highlight=False, markup=False, soft_wrap=True).print
    failed = [record for record in records if record.status == "failed"]
    if why:
        say(f"Ended     {why}")
    if failed:
        say(f"Failed    {len(failed)} trial(s), the last: {in_short(failed[-1])}")
    best = best_record(records, settings.direction)
    if best is None:
        say(f"No trial was completed; what their processes said is in {folder}/processes.")
        if records:  # a chief may end before it has given any out
            say(f"Look at   {write_tune_report(folder)}")
        return None
    Console(highlight=False).print(_table(search, records))
    path = _write_best(search, best)
    for line in _verdict(records, best, settings.objective):
        say(line)
    page = write_tune_report(folder)
    say(f"Figure    {folder / 'figures' / 'score_by_trial.png'}")
    say(f"Look at   {page}")
    say(f"Watch     tensorboard --logdir {folder}  (HPARAMS)")
    say(f"Next      python train.py --config {path}")
    return path


def _verdict(records: list[TrialRecord], best: TrialRecord, objective: str) -> list[str]:
    baseline = next((r for r in records if r.number == 0 and r.score is not None), None)
    if not best.number:
        return [f"Best      the base as it is, {objective} {best.score:.4f}: no trial was better"]
    line = (
        f"Best      trial {best.number}: {objective} {best.score:.4f}, {show_values(best.values)}"
    )
    if baseline is None or baseline.score is None or best.score is None:
        return [line]
    gain = best.score - baseline.score
    return [line, f"Baseline  {baseline.score:.4f}, the base as it is: {gain:+.4f} by the search"]


def _table(search: Search, records: list[TrialRecord]) -> Table:
    settings = search.settings
    scored = [record for record in records if record.is_scored]
    scored.sort(key=lambda r: r.score or 0.0, reverse=settings.direction == "max")
    shown = scored[:_ROWS] + [r for r in scored[_ROWS:] if r.number == 0]
    table = Table(title=f"The best of {sum(r.number > 0 for r in records)} trials")
    names = list(dict.fromkeys(name for record in shown for name in record.values))
    for heading in ("trial", settings.objective):
        table.add_column(heading, justify="right", overflow="fold")
    for heading in _short(names):
        table.add_column(heading, overflow="fold")
    for heading in ("epochs", "minutes"):
        table.add_column(heading, justify="right", no_wrap=True)
    for record in shown:
        scores = [e.score for e in record.executions if e.score is not None]
        spread = f" ± {statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
        table.add_row(
            str(record.number) if record.number else "base",
            f"{record.score:.4f}{spread}",
            *(_cell(record.values[name]) if name in record.values else "" for name in names),
            str(record.epochs),
            f"{record.minutes:.1f}",
        )
    return table


def _short(names: list[str]) -> list[str]:
    """The last parts of dotted names, where these are enough to tell them apart."""
    last = [name.rpartition(".")[2] for name in names]
    return [
        short if last.count(short) == 1 else name for short, name in zip(last, names, strict=True)
    ]


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else show_value(value)


def _write_best(search: Search, best: TrialRecord) -> Path:
    """The base experiment with the best values, to be trained for as long as the base says."""
    trial = trial_experiment(search, best.values, best.trial_id)
    base = search.base
    training = trial.training.model_copy(
        update={
            "epochs": base.training.epochs,
            "early_stopping_patience": base.training.early_stopping_patience,
        }
    )
    run = base.run.model_copy(update={"name": f"{search.settings.name}_best"})
    records = trial.records
    experiment = trial.model_copy(update={"run": run, "training": training, "records": records})
    name = f"Trial {best.number}" if best.number else "The base as it is"
    heading = (
        f"# {name}, the best of {search.folder}: {search.settings.objective} {best.score:.4f} "
        f"after {best.epochs} epochs.\n"
    )
    if best.values:
        heading += f"# {show_values(best.values)}\n"
    path = search.folder / "best.yaml"
    with atomic_write(path, "search.root") as temporary:
        temporary.write_text(heading + dump_experiment(experiment), encoding="utf-8")
    return path
