"""The means of several runs."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from kerasseg.evaluation.bootstrap import MeanInterval
from kerasseg.evaluation.figures.style import RUN_COLOURS, clean


def draw_run_means(means: Mapping[str, Mapping[str, MeanInterval]], label: str) -> Figure:
    """Run -> class -> mean and interval of one metric: a group per class, a bar per run."""
    classes = list(next(iter(means.values())))
    figure = Figure(figsize=(max(6.5, 1.2 * len(classes) + 2), 3.9), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(means)
    for place, (run, row) in enumerate(means.items()):
        for group, name in enumerate(classes):
            value = row[name]
            x = group + (place - (len(means) - 1) / 2) * width
            colour = RUN_COLOURS[place % len(RUN_COLOURS)]
            axes.bar(x, value.mean, 0.9 * width, color=colour, label=run if group == 0 else None)
            if value.low == value.low:
                axes.plot([x, x], [value.low, value.high], color="#333333", lw=1.6)
    axes.set_xticks(range(len(classes)), classes)
    axes.set(ylabel=label, title=f"{label}: means and their intervals")
    axes.legend(
        frameon=False, ncols=min(len(means), 3), loc="upper center", bbox_to_anchor=(0.5, -0.08)
    )
    clean(axes, "y")
    return figure
