"""The end of a search: a table, a figure, the best config, and what to type next."""

import statistics
from pathlib import Path

from rich.console import Console
from rich.table import Table

from kerasseg.config_file import dump_experiment
from kerasseg.tuning.draw_scores import draw_scores
from kerasseg.tuning.progress import show_value, show_values
from kerasseg.tuning.record import TrialRecord, best_record, read_records
from kerasseg.tuning.search import Search
from kerasseg.tuning.trial_experiment import trial_experiment
from kerasseg.write_aside import write_aside

_ROWS = 10


def conclude(search: Search, why: str | None) -> Path | None:
    """Show the best trials, draw `scores.png`, write `best.yaml` and return it.

    None if no trial was completed. `why`: why the search ended before all trials were done.
    """
    settings, folder = search.settings, search.folder
    records = read_records(folder)
    say = Console(highlight=False, markup=False, soft_wrap=True).print
    failed = [record for record in records if record.status == "failed"]
    if why:
        say(f"Ended     {why}")
    if failed:
        say(f"Failed    {len(failed)} trial(s), the last: {failed[-1].reason}")
    best = best_record(records, settings.direction)
    if best is None:
        say(f"No trial was completed; what their processes said is in {folder}/processes.")
        return None
    Console(highlight=False).print(_table(search, records))
    draw_scores(folder / "scores.png", records, settings.objective, settings.direction)
    path = _write_best(search, best)
    say(
        f"Best      trial {best.number}: {settings.objective} {best.score:.4f} with "
        f"{show_values(best.values)}"
    )
    baseline = next((r for r in records if r.number == 0 and r.score is not None), None)
    if baseline is not None and baseline.score is not None and best.score is not None:
        gain = best.score - baseline.score
        say(f"Baseline  {baseline.score:.4f}, the base as it is: {gain:+.4f} by the search")
    say(f"Figure    {folder / 'scores.png'}")
    say(f"Next      python train.py --config {path}")
    return path


def _table(search: Search, records: list[TrialRecord]) -> Table:
    settings = search.settings
    scored = [r for r in records if r.status == "completed" and r.score is not None]
    scored.sort(key=lambda r: r.score or 0.0, reverse=settings.direction == "max")
    shown = scored[:_ROWS]
    shown += [r for r in scored[_ROWS:] if r.number == 0]
    table = Table(title=f"The best of {sum(r.number > 0 for r in records)} trials")
    table.add_column("trial", justify="right")
    table.add_column(settings.objective, justify="right")
    for parameter in search.space:
        table.add_column(parameter.name, overflow="fold")
    table.add_column("epochs", justify="right")
    table.add_column("minutes", justify="right")
    for record in shown:
        values = [
            show_value(record.values[p.name]) if p.name in record.values else ""
            for p in search.space
        ]
        scores = [e.score for e in record.executions if e.score is not None]
        spread = f" ± {statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
        table.add_row(
            str(record.number) if record.number else "base",
            f"{record.score:.4f}{spread}",
            *values,
            str(max((e.epochs for e in record.executions), default=0)),
            f"{record.minutes:.1f}",
        )
    return table


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
    heading = (
        f"# Trial {best.number} of {search.folder}, the best of the search: "
        f"{search.settings.objective} {best.score:.4f} after {search.epochs} epochs with\n"
        f"# {show_values(best.values)}.\n"
    )
    path = search.folder / "best.yaml"
    with write_aside(path, "search.root") as temporary:
        temporary.write_text(heading + dump_experiment(experiment), encoding="utf-8")
    return path
