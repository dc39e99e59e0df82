"""What figures of an evaluation share: colours, strewn dots, axes.

What the figures share: grey images, coloured tumours, safe saving.

What the figures of a data set share: colours, and axes that stay readable from 1 case on.
"""

import colorsys
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from scipy import ndimage

from kerasseg import anatomy
from kerasseg.files import atomic_write

matplotlib.use("Agg")


_TUMOUR_ALPHA = 0.55
_OUTLINE = 0.9
"""Width of a line, points."""


def grey_range(image: np.ndarray) -> tuple[float, float]:
    """The 1st and the 99.5th percentile inside the brain: what is drawn dark and white."""
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
    """Draw one modality (h, w) in grey, air black; `grey` is `grey_range` of another slice."""
    low, high = grey or grey_range(image)
    shown = np.where(image != 0, np.clip((image - low) / max(high - low, 1e-6), 0.02, 1), 0)
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1, aspect=aspect)
    axes.set_title(title, fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])


def show_tumour(axes: Axes, label: np.ndarray, target: str, aspect: float = 1.0) -> None:
    """Lay canonical labels (h, w) over a slice, each channel of `target` in its colour.

    Of regions the inner one hides the outer: WT's colour is left where there is no core.
    """
    rgba = np.zeros((*label.shape, 4))
    for name in anatomy.tumour_channels(target):
        held = np.isin(label, anatomy.TARGETS[target][name])
        rgba[held] = (*colors.to_rgb(anatomy.COLOURS[name]), _TUMOUR_ALPHA)
    axes.imshow(rgba, aspect=aspect, interpolation="nearest")


def show_contours(axes: Axes, masks: np.ndarray, target: str) -> None:
    """Draw the outline of each tumour channel of masks (h, w, K) in its colour.

    Where two share a line, as a ring and what it holds, the inner one's is on top.
    """
    channels = list(anatomy.TARGETS[target])
    held = {name: masks[..., channels.index(name)] > 0 for name in anatomy.tumour_channels(target)}
    outermost = sorted(held, key=lambda name: -int(ndimage.binary_fill_holes(held[name]).sum()))
    for name in outermost:
        if held[name].any() and not held[name].all():
            axes.contour(
                held[name], levels=[0.5], colors=[anatomy.COLOURS[name]], linewidths=_OUTLINE
            )


def legend(figure: Figure, target: str) -> None:
    """The colours of the target's channels below the figure; of a region also what it holds,
    because that is drawn in another colour."""
    ids, words = anatomy.TARGETS[target], {name: name for name in anatomy.tumour_channels(target)}
    for outer, inner in pairwise(words):
        if set(ids[inner]) < set(ids[outer]):
            words[outer] = f"{outer} (holds {inner})"
    handles = [Patch(color=anatomy.COLOURS[name], label=word) for name, word in words.items()]
    figure.legend(handles=handles, loc="lower center", ncol=len(handles), frameon=False)


def save(figure: Figure, path: Path, setting: str = "run.root") -> None:
    """Write a PNG in one step; `setting` is what would move it elsewhere."""
    with atomic_write(path, setting) as temporary:
        figure.savefig(temporary, format="png", dpi=110, facecolor="white")


RUN_COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#8e5ea2", "#e08e0b", "#4d4d4d")
_DARKER = 0.62
_OTHERS = ("#7d7d7d", "#1b6ca8", "#2e8b57", "#8e5ea2")
_HALF_HEIGHT = 0.17
_WIDE = 20.0
"""Largest over smallest volume above which a logarithmic axis shows more."""


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


WHOLE_TUMOUR = "#7d7d7d"


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
