"""`tumour_places.png`: where in the brain the tumours lie."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from kerasseg.exploration.data_set import DataSet

_PICTURE = ("in the picture", 2, 1, "left → right", "bottom → top")
_PLANES = (
    ("seen from below", 2, 1, "right → left", "back → front"),
    ("seen from the front", 2, 0, "right → left", "bottom → top"),
    ("seen from the left", 1, 0, "front → back", "bottom → top"),
)
"""Title; axes of (D, H, W) to the right and upwards; what they run from and to."""
_DOTS = "#333333"


def draw_tumour_places(data_set: DataSet) -> Figure:
    """A dot per tumour at its centre of mass in the brain's box, from three sides."""
    centres = np.array([case.centre for case in data_set.with_tumour])
    planes = (_PICTURE,) if data_set.flat else _PLANES
    figure = Figure(figsize=(3.7 * len(planes), 3.9), layout="constrained")
    for axes, plane in zip(np.ravel(figure.subplots(1, len(planes))), planes, strict=True):
        _draw_plane(axes, centres, *plane)
    return figure


def _draw_plane(
    axes: Axes, centres: np.ndarray, title: str, across: int, up: int, right: str, top: str
) -> None:
    axes.add_patch(Ellipse((0.5, 0.5), 1, 1, facecolor="#f4f4f4", edgecolor="#bbbbbb"))
    alpha = float(np.clip(60 / len(centres), 0.25, 0.9))
    axes.scatter(centres[:, across], centres[:, up], s=22, color=_DOTS, alpha=alpha, linewidths=0)
    axes.plot(
        *np.median(centres, axis=0)[[across, up]],
        "+",
        color="#e6194b",
        ms=14,
        mew=2,
        label="median",
    )
    axes.set(title=title, xlabel=right, ylabel=top, xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    if up == 1:
        axes.invert_yaxis()  # H grows to the back, and the front is up
    axes.set_aspect("equal")
    axes.legend(fontsize=8, loc="upper right")
    axes.set_xticks(ticks := (0, 0.5, 1))
    axes.set_yticks(ticks)
