"""The objective while the best trials were trained."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kerasseg.evaluation.figures.style import RUN_COLOURS, clean, nothing
from kerasseg.tuning.record import TrialRecord
from kerasseg.tuning.report.figures.style import objective_label
from kerasseg.tuning.report.search import Search

_BEST = 5


def draw_best_curves(search: Search) -> Figure:
    """Curves of the five best trials in colour, a line per execution, those of the baseline
    dashed, and of all other trials, failed ones too, in grey."""
    figure = Figure(figsize=(12.5, 4.4), layout="constrained")
    axes = figure.subplots()
    best = [trial for trial in search.ranked if trial.is_scored and not trial.is_baseline][:_BEST]
    for trial in search.trials:
        if trial not in best and not trial.is_baseline:
            _draw(axes, trial, "#bbbbbb", "", lw=0.9, zorder=1)
    for trial, colour in zip(best, RUN_COLOURS, strict=False):
        _draw(axes, trial, colour, f"{trial.title}: {trial.score:.4g}", lw=1.9, zorder=3)
    baseline = search.baseline
    if baseline:
        words = f"baseline: {baseline.score:.4g}" if baseline.is_scored else "baseline"
        _draw(axes, baseline, "#222222", words, lw=1.5, ls="--", zorder=4)
    if not axes.lines:
        nothing(axes, "No trial has finished an epoch.")
    elif axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    axes.set(xlabel="epoch", ylabel=objective_label(search), title="Curves of the best trials")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    clean(axes)
    return figure


def _draw(axes: Axes, trial: TrialRecord, colour: str, words: str, **line: float | str) -> None:
    for execution in trial.executions:
        if execution.curve:
            epochs = range(execution.first_epoch, execution.first_epoch + len(execution.curve))
            marker = "o" if len(execution.curve) < 3 else ""
            axes.plot(
                epochs,
                execution.curve,
                color=colour,
                label=words or None,
                marker=marker,
                ms=3,
                **line,  # type: ignore[arg-type]
            )
            words = ""
