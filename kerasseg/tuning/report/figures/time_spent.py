"""Where the time went."""

from matplotlib.figure import Figure

from kerasseg.evaluation.figures.style import clean
from kerasseg.tuning.record import STATUSES, TrialRecord
from kerasseg.tuning.report.figures.style import STATUS_COLOURS
from kerasseg.tuning.report.search import Search

_ONE = "one process"


def draw_time_spent(search: Search) -> Figure:
    """A row per worker with a bar per trial, coloured by status and numbered where there is room;
    below, the minutes of training by status."""
    workers = sorted({trial.worker or _ONE for trial in search.trials})
    rows = 0.45 * len(workers)
    figure = Figure(figsize=(12.5, 3.1 + rows), layout="constrained")
    axes, sums = figure.subplots(2, 1, height_ratios=(0.9 + rows, 1.2))
    start = min(trial.started for trial in search.trials)
    last = max(_end(trial, search) for trial in search.trials)
    unit, words = (3600, "hours") if last - start > 3 * 3600 else (60, "minutes")
    whole = max(last - start, 1e-6) / unit
    for trial in search.trials:
        row = workers.index(trial.worker or _ONE)
        left, width = (trial.started - start) / unit, (_end(trial, search) - trial.started) / unit
        axes.barh(
            row,
            width,
            left=left,
            height=0.7,
            color=STATUS_COLOURS[trial.status],
            edgecolor="white",
            lw=0.8,
            hatch="//" if trial.status == "running" else None,
        )
        title = "base" if trial.is_baseline else str(trial.number)
        if width > whole * 0.009 * len(title):
            middle = left + width / 2
            ink = "black" if trial.status == "running" else "white"
            axes.text(middle, row, title, ha="center", va="center", fontsize=7, color=ink)
    axes.set_yticks(range(len(workers)), workers, fontsize=8)
    axes.set(xlim=(0, whole), ylim=(len(workers) - 0.4, -0.6), xlabel=f"{words} since the first")
    axes.set_title("Time spent")
    clean(axes, "x")
    present = [status for status in STATUSES if search.count(status)]
    for row, status in enumerate(present):
        minutes = minutes_of(search, status)
        sums.barh(row, minutes, height=0.7, color=STATUS_COLOURS[status])
        count = search.count(status)
        sums.annotate(
            f"{minutes:,.1f} min in {count} trial{'' if count == 1 else 's'}",
            (minutes, row),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    sums.set_yticks(range(len(present)), present, fontsize=8)
    sums.set(ylim=(len(present) - 0.4, -0.6), xlabel="minutes of training, all workers")
    sums.margins(x=0.2)
    clean(sums, "x")
    return figure


def minutes_of(search: Search, status: str) -> float:
    """Of all trials with a status; of running ones what their executions say so far."""
    return sum(trial.minutes for trial in search.trials if trial.status == status)


def _end(trial: TrialRecord, search: Search) -> float:
    return search.until if trial.ended is None else max(trial.ended, trial.started)
