"""How long a prediction takes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from kerasseg.evaluation.figures.style import clean


def draw_inference_time(seconds: Sequence[float], slices: Sequence[int]) -> Figure:
    """Seconds per volume and milliseconds per slice, in the order of the cases: the first one may
    hold the compilation of the network."""
    time, depth = np.asarray(seconds, float), np.asarray(slices, float)
    numbers = np.arange(1, time.size + 1)
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, values, unit, words in (
        (left, time, "s", "Time per volume"),
        (right, 1000 * time / np.maximum(depth, 1), "ms", "Time per slice"),
    ):
        axes.bar(numbers, values, 0.8, color="#1b6ca8")
        median = float(np.median(values))
        axes.axhline(median, color="#d1495b", lw=1.5, label=f"median {median:.3g} {unit}")
        axes.set(xlabel="case, in order", ylabel=unit, title=words)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.margins(y=0.15)
        axes.legend(frameon=False)
        clean(axes, "y")
    return figure
