"""`tumour_sizes.png`: how large the tumours are, and in how many parts."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kerasseg.exploration.data_set import DataSet
from kerasseg.exploration.figures.style import WHOLE_TUMOUR, edges_for, volume_axis
from kerasseg.exploration.number import number

_MANY_PARTS = 10


def draw_tumour_sizes(data_set: DataSet) -> Figure:
    """Cases by volume, by share of the brain and by number of connected parts."""
    figure = Figure(figsize=(11, 3.3), layout="constrained")
    volume, share, parts = figure.subplots(1, 3)
    cases = data_set.with_tumour
    _histogram(volume, np.array([data_set.volume(case) for case in cases]))
    volume.set(title="Tumour size", xlabel=data_set.unit)
    percent = [100 * (c.tumour_voxels or 0) / max(c.brain_voxels, 1) for c in cases]
    _histogram(share, np.array(percent))
    share.set(title="Share of the brain", xlabel="%")
    counts = np.bincount(np.minimum([c.components or 0 for c in cases], _MANY_PARTS))
    parts.bar(np.arange(1, counts.size), counts[1:], color=WHOLE_TUMOUR, width=0.8)
    names = [str(n) for n in range(1, _MANY_PARTS)] + [f"{_MANY_PARTS}+"]
    parts.set_xticks(range(1, _MANY_PARTS + 1), names)
    parts.set(title="Connected parts", xlabel="parts", xlim=(0.3, _MANY_PARTS + 0.7))
    for axes in (volume, share, parts):
        axes.set_ylabel("cases")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", alpha=0.3)
    return figure


def _histogram(axes: Axes, values: np.ndarray) -> None:
    axes.hist(values, list(edges_for(values)), color=WHOLE_TUMOUR, rwidth=0.95)
    median = float(np.median(values))
    axes.axvline(median, color="#e6194b", lw=1.5, label=f"median {number(median)}")
    volume_axis(axes, values)
    axes.legend(fontsize=8)
