"""Which settings moved the score."""

from matplotlib.figure import Figure

from kerasseg.evaluation.figures.style import clean
from kerasseg.tuning.report.figures.style import STATUS_COLOURS
from kerasseg.tuning.report.importance import Importance


def draw_parameter_importance(importance: Importance) -> Figure:
    """A bar per setting with its interval; what is below 0 is noise and has no bar."""
    names = list(importance.shares)
    figure = Figure(figsize=(7.6, 1.6 + 0.38 * len(names)), layout="constrained")
    axes = figure.subplots()
    for row, (mean, low, high) in enumerate(importance.shares.values()):
        axes.barh(row, 100 * max(mean, 0), height=0.62, color=STATUS_COLOURS["completed"])
        axes.plot([100 * low, 100 * high], [row, row], color="#333333", lw=1.6)
        axes.plot([100 * low, 100 * high], [row, row], "|", color="#333333", ms=7)
    axes.axvline(0, color="#333333", lw=1)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel("share of the score's variance [%]")
    axes.set_title(f"Importance of settings, from {importance.trials} trials")
    clean(axes, "x")
    return figure
