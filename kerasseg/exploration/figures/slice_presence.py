"""`slice_presence.png`: at which height of the brain slices have tumour."""

import numpy as np
from matplotlib.figure import Figure

from kerasseg.exploration.case_statistics import HEIGHT_BINS, TUMOUR
from kerasseg.exploration.data_set import DataSet
from kerasseg.exploration.figures.style import colour


def draw_slice_presence(data_set: DataSet) -> Figure:
    """Share of the axial slices that have each class, over their relative height in the brain."""
    names = [*data_set.classes] if TUMOUR in data_set.classes else [TUMOUR, *data_set.classes]
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots()
    edges = np.linspace(0, 100, HEIGHT_BINS + 1)
    for name in names:
        share = np.mean([case.presence[name] for case in data_set.sliced], axis=0)
        whole = name == TUMOUR
        axes.stairs(
            100 * share,
            edges,
            color=colour(name, data_set.classes),
            lw=2,
            fill=whole,
            alpha=0.25 if whole else 1.0,
            label="any tumour" if whole else name,
        )
    axes.set(
        xlabel="height in the brain (0 %: lowest slice, 100 %: crown)",
        ylabel="slices that have it, %",
        xlim=(0, 100),
    )
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9)
    return figure
