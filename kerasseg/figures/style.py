"""The one style of all figures: colours, font sizes, axes, legends, and images of slices."""

import colorsys
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colors
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from scipy import ndimage

from kerasseg import anatomy
from kerasseg.files import write_bytes
from kerasseg.page import to_png

BLUE, RED, GREEN, PURPLE, ORANGE = "#1b6ca8", "#d1495b", "#2e8b57", "#8e5ea2", "#e08e0b"
INK, DIM, LINE = "#333333", "#666666", "#999999"
"""Grey of outlines and means, of remarks, and of lines to compare with."""
RUN_COLOURS = (BLUE, RED, GREEN, PURPLE, ORANGE, "#4d4d4d")
OUTCOME_COLOURS = {
    "right": "#9ccc9c",
    "another class": "#ff9f1c",
    "missed": RED,
    "invented": PURPLE,
}
"""The colour of each outcome of a voxel or a lesion."""
WHOLE_TUMOUR = "#7d7d7d"
"""Colour of the union of several classes."""

FIGURE_TITLE, TITLE, TICK, REMARK, DENSE = 12, 11, 9, 8, 7
"""Font sizes in points: titles, numbers on axes, remarks and legends, cells of tables."""

_TUMOUR_OPACITY = 0.55
_CONTOUR_WIDTH = 0.9
_OTHER_CLASSES = (WHOLE_TUMOUR, BLUE, GREEN, PURPLE)
_WIDE = 20.0
"""Largest over smallest value above which a logarithmic axis shows more."""
GOLDEN, PLASTIC = 0.618034, 0.754878
"""Steps of jitter; two axes that are jittered together need one each."""


def class_colours(classes: Iterable[str]) -> dict[str, str]:
    """Return a colour for each class, no two the same where the anatomy knows the classes.

    WT and TC have the colours of ED and NCR. Beside those they are drawn darker.
    """
    result: dict[str, str] = {}
    for number, name in enumerate(classes):
        colour = anatomy.COLOURS.get(name, _OTHER_CLASSES[number % len(_OTHER_CLASSES)])
        if colour in result.values():
            hue, lightness, saturation = colorsys.rgb_to_hls(*colors.to_rgb(colour))
            darker = colorsys.hls_to_rgb(hue, lightness * 0.62, saturation * 0.75)
            colour = colors.to_hex(darker)
        result[name] = colour
    return result


def dot_opacity(count: int) -> float:
    """Return an opacity at which a few dots as well as hundreds of them can be seen."""
    return float(np.clip(60 / max(count, 1), 0.35, 0.9))


def jitter(numbers: np.ndarray | int, spread: float = 0.17, step: float = GOLDEN) -> np.ndarray:
    """Return offsets from -spread to spread that keep dots of one row apart.

    The offsets are even and the same in every run, because dot number n is moved by n steps.
    """
    return spread * (2 * (np.asarray(numbers) * step % 1) - 1)


# Figures and axes


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, Any]:
    """Make a figure of a size in inches, and its axes as `Figure.subplots` returns them."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def panel_grid(count: int, width: float = 3.4, height: float = 3.4) -> tuple[Figure, list[Axes]]:
    """Make a figure of `count` panels, at most three side by side; sizes are in inches."""
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


def style_axes(axes: Axes, grid: str = "both") -> None:
    """Give axes with a title their fonts, no box, and a faint grid: "x", "y", "both" or ""."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.title.set_fontsize(TITLE)
    axes.tick_params(labelsize=TICK)
    if grid:
        axes.grid(axis=grid, alpha=0.25)  # type: ignore[arg-type]  # a str, not the three literals


def label_rows(axes: Axes, names: Sequence[str]) -> None:
    """Make the y axis one of named rows, the first one on top."""
    axes.set_yticks(range(len(names)), list(names))
    axes.set_ylim(len(names) - 0.5, -0.5)


def whole_ticks(axes: Axes, which: str = "x") -> None:
    """Put ticks at whole numbers only."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(MaxNLocator(integer=True))


def plain_ticks(axes: Axes) -> None:
    """Write the numbers of the x axis as a person does: 0.1, 20, 5,000."""
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def is_wide(values: np.ndarray) -> bool:
    """Return True if the values are positive and span more than a factor of 20."""
    return bool(values.size and values.min() > 0 and values.max() > _WIDE * values.min())


def log_axis(axes: Axes, low: float, high: float) -> None:
    """Make the x axis logarithmic, with plain numbers that do not overlap from low to high."""
    axes.set_xscale("log")
    subdivisions = (1.0,) if high > 300 * low else (1.0, 3.0)
    axes.xaxis.set_major_locator(LogLocator(subs=subdivisions))
    axes.xaxis.set_minor_formatter(NullFormatter())
    plain_ticks(axes)


def value_axis(axes: Axes, values: np.ndarray) -> None:
    """Make the x axis logarithmic if the values are wide; write plain numbers."""
    if is_wide(values):
        log_axis(axes, float(values.min()), float(values.max()))
    else:
        plain_ticks(axes)


def draw_dots(axes: Axes, x: np.ndarray, y: np.ndarray, colour: str) -> None:
    """Draw a dot with a dark outline for each case."""
    axes.scatter(x, y, s=26, color=colour, lw=0.5, edgecolor=INK, zorder=3)


def draw_quartiles(axes: Axes, row: float, values: np.ndarray) -> None:
    """Draw a box from the lower to the upper quartile and a line at the median."""
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
    axes.barh(row, high - low, 0.56, left=low, color="#f0f0f0", edgecolor=INK, lw=1)
    axes.vlines(median, row - 0.28, row + 0.28, color=INK, lw=2, zorder=2)


def write_remark(axes: Axes, text: str) -> None:
    """Write into the middle of an empty panel why it is empty."""
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=DIM)


# Legends


def legend_beside(axes: Axes) -> None:
    """Put the legend to the right of the axes."""
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=REMARK)


def legend_below(axes: Axes) -> None:
    """Put the legend below the axes, in up to three columns."""
    axes.legend(
        ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.08), frameon=False, fontsize=TICK
    )


def figure_legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """Put a legend of one row below a figure, whose layout must be constrained."""
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        frameon=False,
        fontsize=TICK,
        columnspacing=1.0,
        handlelength=1.2,
    )


def class_handles(target: str) -> list[Patch]:
    """Return a legend's entries for the tumour channels of a target."""
    return [Patch(color=anatomy.COLOURS[n], label=n) for n in anatomy.tumour_channels(target)]


def label_legend(figure: Figure, target: str) -> None:
    """Put the colours of `show_label` below a figure.

    An entry of a region also names the region inside it, which has its own colour.
    """
    ids, handles = anatomy.TARGETS[target], class_handles(target)
    for outer, inner in pairwise(handles):
        outer_name, inner_name = str(outer.get_label()), str(inner.get_label())
        if set(ids[inner_name]) < set(ids[outer_name]):
            outer.set_label(f"{outer_name} (holds {inner_name})")
    figure_legend(figure, handles)


# Slices


def grey_range(image: np.ndarray) -> tuple[float, float]:
    """Return the values that are drawn black and white.

    They are the 1st and the 99.5th percentile of the voxels that are not 0.
    """
    brain = image[image != 0]
    low, high = np.percentile(brain, (1, 99.5)) if brain.size else (0.0, 1.0)
    return float(low), float(high)


def show_slice(
    axes: Axes,
    image: np.ndarray,
    title: str = "",
    aspect: float = 1.0,
    grey: tuple[float, float] | None = None,
) -> None:
    """Draw a slice (h, w) of one modality in grey, air black.

    `aspect` is the height of a pixel over its width, `grey` the `grey_range` of another slice.
    """
    low, high = grey or grey_range(image)
    shown = np.where(image != 0, np.clip((image - low) / max(high - low, 1e-6), 0.02, 1), 0)
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1, aspect=aspect)
    axes.set_title(title, fontsize=TITLE - 1)
    axes.set_xticks([])
    axes.set_yticks([])


def show_label(axes: Axes, label: np.ndarray, target: str, aspect: float = 1.0) -> None:
    """Lay a label (h, w) over a slice, each channel of the target in its colour.

    An inner region hides the outer one: WT's colour is left where there is no core.
    """
    rgba = np.zeros((*label.shape, 4))
    for name in anatomy.tumour_channels(target):
        inside = np.isin(label, anatomy.TARGETS[target][name])
        rgba[inside] = (*colors.to_rgb(anatomy.COLOURS[name]), _TUMOUR_OPACITY)
    axes.imshow(rgba, aspect=aspect, interpolation="nearest")


def show_contours(axes: Axes, masks: np.ndarray, target: str) -> None:
    """Draw the outline of each tumour channel of masks (h, w, K) in its colour.

    Where a ring and what it encloses share a line, the inner channel's colour is on top.
    """
    channels = list(anatomy.TARGETS[target])
    planes = {
        name: masks[..., channels.index(name)] > 0 for name in anatomy.tumour_channels(target)
    }
    outermost = sorted(planes, key=lambda name: -int(ndimage.binary_fill_holes(planes[name]).sum()))
    for name in outermost:
        if planes[name].any() and not planes[name].all():
            axes.contour(
                planes[name],
                levels=[0.5],
                colors=[anatomy.COLOURS[name]],
                linewidths=_CONTOUR_WIDTH,
            )


def save_figure(figure: Figure, path: Path, setting: str = "run.root") -> None:
    """Write a figure as PNG in one step; an error message names `setting` as the way elsewhere."""
    write_bytes(path, to_png(figure), setting)
