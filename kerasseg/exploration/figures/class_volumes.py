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
            alpha=float(np.clip(60 / max(values.size, 1), 0.3, 0.9)),
            linewidths=0,
        )
        if values.size > 4:
            low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
            axes.barh(row, high - low, 0.5, left=low, fill=False, edgecolor="black")
            axes.vlines(median, row - 0.25, row + 0.25, color="black", lw=2)
    volume_axis(axes, np.concatenate(every))
    axes.set_yticks(range(len(names)), _row_titles(data_set, names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set(title="Size in the cases that have it", xlabel=data_set.unit)
    axes.grid(axis="x", alpha=0.3)


def _draw_frequencies(axes: Axes, data_set: DataSet, names: list[str]) -> None:
    tumour = sum(data_set.voxels.values())
    for row, name in enumerate(names):
        shade = colour(name, data_set.classes)
        cases = data_set.cases_with.get(name, len(data_set.with_tumour))
        apart = 0.2 if len(names) > 1 and name in data_set.voxels else 0.0
        _draw_bar(axes, row - apart, cases / len(data_set.labelled), "of cases", shade, 1.0)
        if apart:
            share = data_set.voxels[name] / tumour
            _draw_bar(axes, row + apart, share, "of tumour voxels", shade, 0.45)
    axes.set_yticks(range(len(names)), [""] * len(names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set(title="How often", xlabel="%", xlim=(0, 100))


def _draw_bar(axes: Axes, place: float, share: float, words: str, shade: str, alpha: float) -> None:
    axes.barh(place, 100 * share, 0.36, color=shade, alpha=alpha)
    inside = share > 0.6
    axes.annotate(
        f"{100 * share:.3g} % {words}",
        (100 * share, place),
        (-4 if inside else 4, 0),
        textcoords="offset points",
        ha="right" if inside else "left",
        va="center",
        fontsize=8,
    )


def _row_titles(data_set: DataSet, names: list[str]) -> list[str]:
    return [name if name in data_set.classes else "whole tumour" for name in names]
