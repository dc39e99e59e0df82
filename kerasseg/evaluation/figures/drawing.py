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

from kerasseg import anatomy
from kerasseg.write_aside import write_aside

_TUMOUR_ALPHA = 0.55


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
    """Lay canonical labels (h, w) over a slice, each channel of `target` in its colour.

    Of regions the inner one hides the outer: WT's colour is left where there is no core.
    """
    rgba = np.zeros((*label.shape, 4))
    for name in anatomy.tumour_channels(target):
        held = np.isin(label, anatomy.TARGETS[target][name])
        rgba[held] = (*colors.to_rgb(anatomy.COLOURS[name]), _TUMOUR_ALPHA)
    axes.imshow(rgba, aspect=aspect, interpolation="nearest")


def legend(figure: Figure, target: str) -> None:
    """The colours of the target's channels below the figure; of a region also what it holds,
    because that is drawn in another colour."""
    ids, words = anatomy.TARGETS[target], {name: name for name in anatomy.tumour_channels(target)}
    for outer, inner in pairwise(words):
        if set(ids[inner]) < set(ids[outer]):
            words[outer] = f"{outer} (holds {inner})"
    handles = [Patch(color=anatomy.COLOURS[name], label=word) for name, word in words.items()]
    figure.legend(handles=handles, loc="lower center", ncol=len(handles), frameon=False)


def save(figure: Figure, path: Path) -> None:
    """Write a PNG in one step."""
    with write_aside(path, "run.root") as temporary:
        figure.savefig(temporary, format="png", dpi=110, facecolor="white")
