"""Where a prediction is wrong, in colours."""

import numpy as np
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.patches import Patch

ERRORS = {
    "right": "#9ccc9c",
    "another class": "#ff9f1c",
    "missed": "#d1495b",
    "invented": "#8e5ea2",
}
"""Kind of voxel -> colour."""


def error_kinds(truth: np.ndarray, prediction: np.ndarray) -> dict[str, np.ndarray]:
    """Masks of `ERRORS` of two labels of one shape: tumour of the right class, of another one,
    tumour taken for healthy, healthy taken for tumour."""
    both = (truth > 0) & (prediction > 0)
    return {
        "right": both & (truth == prediction),
        "another class": both & (truth != prediction),
        "missed": (truth > 0) & (prediction == 0),
        "invented": (truth == 0) & (prediction > 0),
    }


def show_errors(axes: Axes, truth: np.ndarray, prediction: np.ndarray, aspect: float = 1.0) -> None:
    """Lay the errors of labels (h, w) over a slice."""
    rgba = np.zeros((*truth.shape, 4))
    for name, mask in error_kinds(truth, prediction).items():
        rgba[mask] = (*colors.to_rgb(ERRORS[name]), 0.85)
    axes.imshow(rgba, aspect=aspect, interpolation="nearest")


def error_handles(target: str) -> list[Patch]:
    """For a legend; of one class none is taken for another."""
    names = [name for name in ERRORS if not (target == "binary" and name == "another class")]
    return [Patch(color=ERRORS[name], label=name) for name in names]
