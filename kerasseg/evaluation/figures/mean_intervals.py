"""Means with their intervals."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from kerasseg.evaluation.bootstrap import MeanInterval
from kerasseg.evaluation.figures.style import clean, shades


def draw_mean_intervals(
    means: Mapping[str, Mapping[str, MeanInterval]], labels: Mapping[str, str], confidence: float
) -> Figure:
    """A panel per metric of `labels` (metric -> its words and unit), a row per class of `means`
    (class -> metric -> mean and interval)."""
    colours = shades(means)
    width = max(6.0, 3.4 * len(labels))
    figure = Figure(figsize=(width, 1.5 + 0.42 * len(means)), layout="constrained")
    panels = figure.subplots(1, len(labels), sharey=True, squeeze=False)[0]
    for axes, (metric, words) in zip(panels, labels.items(), strict=True):
        for row, (name, found) in enumerate(means.items()):
            value = found[metric]
            if value.low == value.low:
                axes.plot([value.low, value.high], [row, row], color=colours[name], lw=4, alpha=0.7)
            axes.plot(value.mean, row, "o", ms=7, color=colours[name], mec="#333333", mew=0.8)
            axes.annotate(
                f"{value.mean:.3g}",
                (value.mean, row),
                (0, 7),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
        axes.set_xlabel(words)
        axes.margins(x=0.15)
        clean(axes, "x")
    panels[0].set_yticks(range(len(means)), list(means))
    panels[0].set_ylim(len(means) - 0.5, -0.7)
    figure.suptitle(f"Means over cases and their {100 * confidence:g} % intervals")
    return figure
