"""What figures of an evaluation share: colours, strewn dots, axes."""

import colorsys
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from kerasseg import anatomy

RUN_COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#8e5ea2", "#e08e0b", "#4d4d4d")
_DARKER = 0.62
_OTHERS = ("#7d7d7d", "#1b6ca8", "#2e8b57", "#8e5ea2")
_HALF_HEIGHT = 0.17
_WIDE = 20.0


def shades(classes: Iterable[str]) -> dict[str, str]:
    """A colour per class: that of the anatomy; WT and TC beside sub-regions, whose colours they
    share, a darker one."""
    result: dict[str, str] = {}
    for number, name in enumerate(classes):
        colour = anatomy.COLOURS.get(name, _OTHERS[number % len(_OTHERS)])
        if colour in result.values():
            hue, light, strength = colorsys.rgb_to_hls(*colors.to_rgb(colour))
            colour = colors.to_hex(colorsys.hls_to_rgb(hue, light * _DARKER, strength * 0.75))
        result[name] = colour
    return result


def strewn(row: float, count: int) -> np.ndarray:
    """Heights of dots about a row, in golden-ratio steps: even, and the same in every run."""
    return row + _HALF_HEIGHT * (2 * (np.arange(count) * 0.618034 % 1) - 1)


def dot_alpha(count: int) -> float:
    """So that a few dots and hundreds are both seen."""
    return float(np.clip(60 / max(count, 1), 0.35, 0.9))


def clean(axes: Axes, grid: str = "both") -> None:
    """No box, a faint grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis=grid, alpha=0.25)  # type: ignore[arg-type]


def plain_numbers(axes: Axes, which: Sequence[str] = ("x",)) -> None:
    """Ticks as a person writes them: 0.1, 20, 5,000."""
    for name in which:
        axis = axes.xaxis if name == "x" else axes.yaxis
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def logarithmic(axes: Axes, values: np.ndarray) -> None:
    """A logarithmic x axis where positive values span more than a factor of 20; plain numbers."""
    if values.size and values.max() > _WIDE * values.min():
        axes.set_xscale("log")
        decades = np.log10(values.max() / values.min())
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if decades > 2.5 else (1.0, 3.0)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    plain_numbers(axes)


def class_panels(count: int, width: float = 3.4, height: float = 3.4) -> tuple[Figure, list[Axes]]:
    """Panels side by side, at most three in a row."""
    columns = min(count, 3)
    rows = -(-count // columns)
    figure = Figure(
        figsize=(max(width * columns, 5.0), height * rows + 0.4),
        layout=ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.08),
    )
    panels = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for panel in panels[count:]:
        panel.set_visible(False)
    return figure, panels[:count]


def nothing(axes: Axes, words: str) -> None:
    """Say in the middle of an empty panel why it is empty."""
    axes.text(0.5, 0.5, words, ha="center", va="center", transform=axes.transAxes, color="#666666")
