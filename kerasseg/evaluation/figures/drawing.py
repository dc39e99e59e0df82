"""What the figures share: grey images, coloured tumours, safe saving."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from kerasseg import anatomy
from kerasseg.write_aside import write_aside

_TUMOUR_ALPHA = 0.55
_DRAWING_ORDER = ("tumour", "ED", "NCR", "ET")
"""Channels from the outermost to the innermost, which is drawn last."""


def show_slice(axes: Axes, image: np.ndarray, title: str = "", aspect: float = 1.0) -> None:
    """Draw one modality (h, w) in grey between its 1st and 99.5th percentile inside the brain."""
    brain = image[image != 0]
    low, high = np.percentile(brain, (1, 99.5)) if brain.size else (0.0, 1.0)
    shown = np.where(image != 0, np.clip((image - low) / max(high - low, 1e-6), 0.02, 1), 0)
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1, aspect=aspect)
    axes.set_title(title, fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])


def show_tumour(axes: Axes, label: np.ndarray, target: str, aspect: float = 1.0) -> None:
    """Lay canonical labels (h, w) over a slice, each channel of `target` in its colour."""
    rgba = np.zeros((*label.shape, 4))
    for name, ids in anatomy.TARGETS[target].items():
        rgba[np.isin(label, ids)] = (*colors.to_rgb(anatomy.COLOURS[name]), _TUMOUR_ALPHA)
    axes.imshow(rgba, aspect=aspect, interpolation="nearest")


def legend(figure: Figure, target: str) -> None:
    """The colours of the target's channels below the figure."""
    handles = [Patch(color=anatomy.COLOURS[name], label=name) for name in anatomy.TARGETS[target]]
    figure.legend(handles=handles, loc="lower center", ncol=len(handles), frameon=False)


def masks_to_label(masks: np.ndarray, target: str) -> np.ndarray:
    """Masks (..., K) of the target's channels -> labels (...) for drawing.

    A channel gets the first of its ids. Where several hold, the innermost wins: ET over NCR over
    ED.
    """
    label = np.zeros(masks.shape[:-1], np.uint8)
    channels = anatomy.TARGETS[target]
    for name in sorted(channels, key=_DRAWING_ORDER.index):
        label[masks[..., list(channels).index(name)]] = channels[name][0]
    return label


def save(figure: Figure, path: Path) -> None:
    """Write a PNG in one step."""
    with write_aside(path, "run.root") as temporary:
        figure.savefig(temporary, format="png", dpi=110, facecolor="white")
