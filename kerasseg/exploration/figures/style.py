"""What the figures of a data set share: colours, and axes that stay readable from 1 case on."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from kerasseg import anatomy

WHOLE_TUMOUR = "#7d7d7d"
_WIDE = 20.0
"""Largest over smallest volume above which a logarithmic axis shows more."""


def colour(name: str, classes: Sequence[str]) -> str:
    """The colour of a class; that of the whole tumour where it is the union of several."""
    return anatomy.COLOURS[name] if name in classes else WHOLE_TUMOUR


def is_wide(values: np.ndarray) -> bool:
    """Whether positive values span so much that they need a logarithmic axis."""
    return bool(values.size and values.min() > 0 and values.max() > _WIDE * values.min())


def volume_axis(axes: Axes, values: np.ndarray) -> None:
    """Scale and label the x axis for volumes, with numbers a person writes: 0.1, 20, 5,000."""
    if is_wide(values):
        axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def edges_for(values: np.ndarray) -> np.ndarray:
    """Edges of a histogram of positive values: more bins for more cases, logarithmic if wide."""
    bins = int(np.clip(2 * np.sqrt(values.size), 8, 40))
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return np.array([0.8, 0.95, 1.05, 1.2]) * (low or 1.0)
    return (np.geomspace if is_wide(values) else np.linspace)(low, high, bins + 1)
