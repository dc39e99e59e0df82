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


def show_slice(axes: Axes, image: np.ndarray, title: str = "", aspect: float = 1.0) -> None:
    """Draw one modality (h, w) in grey between its 1st and 99.5th percentile inside the brain."""
    brain = image[image != 0]
    low, high = np.percentile(brain, (1, 99.5)) if brain.size else (0.0, 1.0)
    shown = np.where(image != 0, np.clip((image - low) / max(high - low, 1e-6), 0.02, 1), 0)
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1, aspect=aspect)
    axes.set_title(title, fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])


def show_tumour(axes: Axes, label: np.ndarray, aspect: float = 1.0) -> None:
    """Lay canonical labels (h, w) over a slice in the colours of `anatomy.COLOURS`."""
    rgba = np.zeros((*label.shape, 4))
    for name, class_id in anatomy.SUBREGIONS.items():
        rgba[label == class_id] = (*colors.to_rgb(anatomy.COLOURS[name]), _TUMOUR_ALPHA)
    axes.imshow(rgba, aspect=aspect, interpolation="nearest")


def legend(figure: Figure) -> None:
    """The colours of the sub-regions below the figure."""
    handles = [Patch(color=anatomy.COLOURS[name], label=name) for name in anatomy.SUBREGIONS]
    figure.legend(handles=handles, loc="lower center", ncol=len(handles), frameon=False)


def masks_to_label(masks: np.ndarray) -> np.ndarray:
    """Masks (..., 3) of NCR, ED, ET -> canonical labels (...).

    Where several hold, the innermost wins for drawing: ET over NCR over ED.
    """
    label = np.zeros(masks.shape[:-1], np.uint8)
    names = list(anatomy.SUBREGIONS)
    for name in ("ED", "NCR", "ET"):
        label[masks[..., names.index(name)]] = anatomy.SUBREGIONS[name]
    return label


def save(figure: Figure, path: Path) -> None:
    """Write a PNG in one step."""
    with write_aside(path, "run.root") as temporary:
        figure.savefig(temporary, format="png", dpi=110, facecolor="white")
