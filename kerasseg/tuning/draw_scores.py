"""A figure of the scores in the order of the trials."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kerasseg.tuning.record import TrialRecord
from kerasseg.write_aside import write_aside


def draw_scores(path: Path, records: Sequence[TrialRecord], objective: str, direction: str) -> None:
    """A point per completed trial, the best so far as steps, the baseline as a line, failed trials
    as crosses at the bottom."""
    trials = [r for r in records if r.number and r.status == "completed" and r.score is not None]
    failed = [r.number for r in records if r.number and r.status == "failed"]
    baseline = next((r.score for r in records if not r.number and r.score is not None), None)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    numbers = [record.number for record in trials]
    scores = [record.score or 0.0 for record in trials]
    better = max if direction == "max" else min
    so_far = [better(scores[: index + 1]) for index in range(len(scores))]
    axes.step(numbers, so_far, where="post", color="tab:blue", label="best so far")
    axes.plot(numbers, scores, "o", color="tab:orange", label="trial")
    if baseline is not None:
        axes.axhline(baseline, color="grey", linestyle="--", label="base experiment")
    if failed:
        bottom = axes.get_ylim()[0]
        axes.plot(failed, [bottom] * len(failed), "x", color="tab:red", label="failed")
    axes.set_xlabel("trial")
    axes.set_ylabel(objective)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    with write_aside(path, "search.root") as temporary:
        figure.savefig(temporary, dpi=120)
