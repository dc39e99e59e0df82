"""What figures of a search share: colours of scores and statuses, axes of parameters.

Settings and their values in words.
"""

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from kerasseg.tuning.report.read_search import Search
from kerasseg.tuning.space import Parameter
from kerasseg.tuning.trials import TrialRecord


def choices_in_words(parameter: Parameter, lines: int = 3, width: int = 20) -> list[str]:
    """The choices in at most so many lines of so many characters, no two the same."""
    short = [_shortened(value_in_words(choice), lines, width) for choice in parameter.choices]
    if len(set(short)) < len(short):
        short = [f"{n + 1}: {word}" for n, word in enumerate(short)]
    return short


def range_in_words(parameter: Parameter) -> str:
    """What is searched, and when the setting is in use at all."""
    if parameter.is_category:
        words = ", ".join(map(value_in_words, parameter.choices))
    else:
        words = f"{parameter.lowest:.4g} to {parameter.highest:.4g}"
        words += ", logarithmic" if parameter.log else ""
        words += ", whole numbers" if parameter.kind == "int" else ""
    for name, wanted in parameter.when.items():
        words += f"; if {name} is {' or '.join(map(value_in_words, wanted))}"
    return words


def value_in_words(value: Any) -> str:
    """A value as a table shows it: lists and sections as YAML has them, in one line."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return f"[{', '.join(_item(item) for item in value)}]"
    return f"{{{_item(value)}}}" if isinstance(value, dict) else str(value)


def _item(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {value_in_words(entry)}" for name, entry in value.items())
    return value_in_words(value)


def _shortened(words: str, lines: int, width: int) -> str:
    """Of what is longer, both ends."""
    found = textwrap.wrap(words, width, break_on_hyphens=False)
    if len(found) > lines:
        half = width * lines // 2 - (2 if lines > 1 else 1)
        found = textwrap.wrap(f"{words[:half]}\N{HORIZONTAL ELLIPSIS}{words[-half:]}", width)
    return "\n".join(found)


matplotlib.use("Agg")


STATUS_COLOURS = {
    "completed": "#1b6ca8",
    "stopped": "#e08e0b",
    "failed": "#d1495b",
    "running": "#8a949e",
}
BEST = "#d1495b"
PANELS = 3
"""Panels side by side."""
_CHARACTERS = 48
"""As many stand side by side below a panel."""
_FEW = 4
_FAR = 6.0
"""Quartile distances from which on a bad score is drawn at the edge."""


def score_colours(
    search: Search, scores: Sequence[float] | None = None
) -> tuple[Colormap, Normalize]:
    """Bright is good, in both directions. From the first quartile on: one trial that learnt
    nothing would leave all the others in one colour. `scores` are the search's."""
    scores = (search.scores if scores is None else scores) or [0.0]
    best, worst = (max, min) if search.direction == "max" else (min, max)
    quartile = float(np.percentile(scores, 25 if search.direction == "max" else 75))
    end = quartile if quartile != best(scores) else worst(scores)
    low, high = sorted((end, best(scores)))
    name = "viridis" if search.direction == "max" else "viridis_r"
    return colormaps[name], Normalize(low, high if high > low else low + 1e-9, clip=True)


def score_bar(
    figure: Figure, search: Search, axes: Axes, scores: Sequence[float] | None = None
) -> None:
    """A bar that says what `score_colours` are, good on top."""
    colours, scale = score_colours(search, scores)
    beyond = "min" if search.direction == "max" else "max"
    bar = figure.colorbar(ScalarMappable(scale, colours), ax=axes, pad=0.01, extend=beyond)
    if search.direction == "min":
        bar.ax.invert_yaxis()
    bar.set_label(objective_label(search))


def epoch_shades(search: Search) -> dict[int | None, tuple[float, float, float, float]]:
    """A blue per number of epochs that the tuner asked for, dark is long; empty where all trials
    have the same."""
    lengths = search.planned_epochs
    if len(lengths) < 2:
        return {}
    blues = colormaps["Blues"]
    return {n: blues(0.4 + 0.6 * i / (len(lengths) - 1)) for i, n in enumerate(lengths)}


def parameter_axis(axes: Axes, parameter: Parameter, which: str = "x") -> None:
    """Scale, ticks and limits of a parameter, whose values are `Parameter.number`."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    set_limits = axes.set_xlim if which == "x" else axes.set_ylim
    if parameter.is_category:
        count = len(parameter.choices)
        # Few stand upright in lines as wide as their share; many lie aslant.
        few = which == "y" or count <= _FEW
        width = 20 if which == "y" else _CHARACTERS // count
        labels = choices_in_words(parameter, *((3, width) if few else (1,)))
        aslant = not few and sum(map(len, labels)) > _CHARACTERS
        axis.set_ticks(range(count))
        axis.set_ticklabels(labels)
        if aslant:
            axes.tick_params(axis="x", rotation=30)
            for label in axis.get_ticklabels():
                label.set(ha="right", rotation_mode="anchor")
        set_limits(-0.5, count - 0.5)
        axes.tick_params(axis="x" if which == "x" else "y", labelsize=8)
        return
    if parameter.log:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        ratio = (parameter.highest / parameter.lowest) ** 0.04
        set_limits(parameter.lowest / ratio, parameter.highest * ratio)
        return
    margin = 0.04 * (parameter.highest - parameter.lowest)
    set_limits(parameter.lowest - margin, parameter.highest + margin)
    if parameter.kind == "int":
        axis.set_major_locator(MaxNLocator(integer=True))


def panels(count: int, height: float = 3.3) -> tuple[Figure, list[Axes]]:
    """Panels in rows of three over the whole width of the page."""
    columns = min(max(count, 1), PANELS)
    rows = -(-max(count, 1) // columns)
    figure = Figure(
        figsize=(max(4.2 * columns, 6.0), height * rows),
        layout=ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.08),
    )
    found = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for axes in found[count:]:
        axes.set_visible(False)
    return figure, found[:count]


def score_range(search: Search) -> tuple[float, float]:
    """Lowest and highest score to draw. A few scores that are bad beyond all others (a loss of 1e6)
    are left out: the rest would be one line."""
    scores = np.array(search.scores or [0.0])
    low, high = float(scores.min()), float(scores.max())
    first, third = np.percentile(scores, (25, 75))
    far = _FAR * float(third - first)
    if far > 0 and search.direction == "max":
        low = max(low, float(first) - far)
    elif far > 0:
        high = min(high, float(third) + far)
    return low, high


def score_limits(search: Search) -> tuple[float, float] | None:
    """Of an axis of scores with room below for those without one; None without any score."""
    if not search.scores:
        return None
    low, high = score_range(search)
    span = (high - low) or abs(high) * 0.1 or 1.0
    return low - 0.14 * span, high + 0.08 * span


def without_score(search: Search) -> list[TrialRecord]:
    """Trials that ended without a score, or still run."""
    return [trial for trial in search.trials if not trial.is_scored]


def objective_label(search: Search) -> str:
    """Words for an axis of scores."""
    return f"{search.objective}, {'high' if search.direction == 'max' else 'low'} is good"
