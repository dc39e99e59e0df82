"""What the figures share: grey images, coloured tumours, safe saving."""

from itertools import pairwise
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy import ndimage

from kerasseg import anatomy
from kerasseg.write_aside import write_aside

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
    with write_aside(path, setting) as temporary:
        figure.savefig(temporary, format="png", dpi=110, facecolor="white")
