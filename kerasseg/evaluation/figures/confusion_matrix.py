"""Which class is taken for which."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure


def draw_confusion_matrix(matrix: np.ndarray, classes: Sequence[str]) -> Figure:
    """Voxels (true, predicted) normalised by row: of each true class, what became of it; the
    number of voxels below each share."""
    total = matrix.sum(axis=1, keepdims=True)
    shares = matrix / np.maximum(total, 1)
    figure = Figure(figsize=(1.9 + 1.05 * len(classes), 1.3 + 0.95 * len(classes)))
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    for row, column in np.ndindex(*matrix.shape):
        share = shares[row, column]
        words = f"{share:.1%}\n{_short(int(matrix[row, column]))}" if total[row, 0] else "none"
        colour = "white" if share > 0.55 else "#222222"
        axes.text(column, row, words, ha="center", va="center", fontsize=9, color=colour)
    axes.set_xticks(range(len(classes)), list(classes))
    axes.set_yticks(range(len(classes)), list(classes))
    axes.tick_params(length=0)
    axes.set(xlabel="predicted", ylabel="true", title="Confusion matrix of voxels")
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    return figure


def _short(count: int) -> str:
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g} {letter}"
    return str(count)
