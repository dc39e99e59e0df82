"""`class_volumes.png`: how large each class is, and how often it occurs."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kerasseg.exploration.case_statistics import TUMOUR
from kerasseg.exploration.data_set import DataSet
from kerasseg.exploration.figures.style import colour, volume_axis

_HALF_HEIGHT = 0.16
"""How far the dots of a row are strewn up and down."""


def draw_class_volumes(data_set: DataSet) -> Figure:
    """Left: a dot per case, with quartiles. Right: share of the cases that have the class, and of
    all tumour voxels."""
    names = [*data_set.classes] if len(data_set.classes) == 1 else [*data_set.classes, TUMOUR]
    figure = Figure(figsize=(11, 1.6 + 0.75 * len(names)), layout="constrained")
    volumes, frequencies = figure.subplots(1, 2, width_ratios=(1.6, 1))
    _draw_volumes(volumes, data_set, names)
    _draw_frequencies(frequencies, data_set, names)
    return figure


def _draw_volumes(axes: Axes, data_set: DataSet, names: list[str]) -> None:
    every = []
    for row, name in enumerate(names):
        values = np.array([data_set.volume(case, name) for case in data_set.with_tumour])
        values = values[values > 0]
        every.append(values)
        # Golden-ratio steps strew the dots evenly, and the same in every run.
        places = row + _HALF_HEIGHT * (2 * (np.arange(values.size) * 0.618034 % 1) - 1)
        axes.scatter(
            values,
            places,
            s=14,
            color=colour(name, data_set.classes),
            alpha=float(np.clip(20 / max(values.size, 1), 0.2, 0.9)),
            linewidths=0,
        )
        if values.size > 4:
            axes.boxplot(
                [values],
                positions=[row],
                widths=0.5,
                orientation="horizontal",
                manage_ticks=False,
                showfliers=False,
                medianprops={"color": "black", "lw": 2},
            )
    volume_axis(axes, np.concatenate(every))
    axes.set_yticks(range(len(names)), _row_titles(data_set, names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set(title="Volume in the cases that have it", xlabel=data_set.unit)
    axes.grid(axis="x", alpha=0.3)


def _draw_frequencies(axes: Axes, data_set: DataSet, names: list[str]) -> None:
    cases = [
        data_set.cases_with[n] if n in data_set.cases_with else len(data_set.with_tumour)
        for n in names
    ]
    every = max(sum(data_set.voxels.values()), 1)
    voxels = [data_set.voxels.get(n, every) / every for n in names]
    rows = np.arange(len(names))
    colours = [colour(name, data_set.classes) for name in names]
    shares = np.array(cases) / len(data_set.labelled)
    for offset, values, alpha in ((-0.2, shares, 1.0), (0.2, np.array(voxels), 0.45)):
        axes.barh(rows + offset, 100 * values, 0.36, color=colours, alpha=alpha)
        kind = "of cases" if offset < 0 else "of tumour voxels"
        for row, value in zip(rows, values, strict=True):
            inside = value > 0.6
            axes.annotate(
                f"{100 * value:.3g} % {kind}",
                (100 * value, row + offset),
                (-4 if inside else 4, 0),
                textcoords="offset points",
                ha="right" if inside else "left",
                va="center",
                fontsize=8,
            )
    axes.set_yticks(rows, [""] * len(names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set(title="How often", xlabel="%", xlim=(0, 100))


def _row_titles(data_set: DataSet, names: list[str]) -> list[str]:
    return [name if name in data_set.classes else "whole tumour" for name in names]
