"""The end of a search: a table, a figure, the best config, and what to type next."""

import statistics
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kerasseg.config_file import dump_experiment
from kerasseg.tuning.progress import in_short, show_value, show_values
from kerasseg.tuning.record import TrialRecord, best_record, read_records
from kerasseg.tuning.report.write_tune_report import write_tune_report
from kerasseg.tuning.search import Search
from kerasseg.tuning.trial_experiment import trial_experiment
from kerasseg.write_aside import write_aside

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
    with write_aside(path, "search.root") as temporary:
        temporary.write_text(heading + dump_experiment(experiment), encoding="utf-8")
    return path
