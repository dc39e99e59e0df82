"""`intensities.png`: how bright each modality is, before and after the z-score."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from kerasseg import anatomy
from kerasseg.exploration.data_set import DataSet
from kerasseg.exploration.intensities import Intensities

Z_EDGES = np.linspace(-4, 6, 101)
_BINS = 100
_FEW = 6
"""Up to so many cases, each has a curve of its own; of more, quantiles are drawn."""
_TOWERS = 5
"""Bins that may rise above the axes, which end at `_CUT` times the highest other one."""
_CUT = 2.5
_SPREAD_GAINS = 8.0
"""Largest over smallest upper end above which one linear axis would squeeze most cases flat."""


def draw_intensities(data_set: DataSet) -> Figure:
    """A row per modality: the mean over cases of the share of voxels per bin, and a band."""
    modalities = data_set.settings.modalities
    figure = Figure(figsize=(11, 0.4 + 2.3 * len(modalities)), layout="constrained")
    rows = figure.subplots(len(modalities), 2, squeeze=False)
    for (before, after), modality in zip(rows, modalities, strict=True):
        cases = [case.intensities[modality] for case in data_set.cases]
        edges, logarithmic = common_edges(cases)
        _draw_curves(before, edges, np.array([case.shares(edges) for case in cases]))
        if logarithmic:
            before.set_xscale("log")
        before.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
        _draw_curves(after, Z_EDGES, np.array([case.normalised_shares(Z_EDGES) for case in cases]))
        before.set_ylabel(anatomy.MODALITY_TITLES.get(modality, modality), fontsize=11)
    rows[0, 0].set_title("as in the files")
    rows[0, 1].set_title("after the z-score")
    rows[0, 1].legend(fontsize=8)
    rows[-1, 0].set_xlabel("intensity of the non-zero voxels")
    rows[-1, 1].set_xlabel("standard deviations from the case's mean")
    return figure


def common_edges(cases: list[Intensities]) -> tuple[np.ndarray, bool]:
    """One range for all cases, up to a few that lie far off; logarithmic where gains differ much.

    Returns the bins' edges, and whether they are logarithmic.
    """
    ends = np.array([case.end for case in cases])
    lows = np.array([case.percentiles[0] for case in cases])
    logarithmic = bool(lows.min() > 0 and ends.max() > _SPREAD_GAINS * ends.min())
    starts = lows if logarithmic else np.array([case.start for case in cases])
    low, high = float(np.quantile(starts, 0.02)), float(np.quantile(ends, 0.98))
    if not logarithmic:
        high = min(high, low + _SPREAD_GAINS * (float(np.median(ends)) - low))
    return (np.geomspace if logarithmic else np.linspace)(low, high, _BINS + 1), logarithmic


def _draw_curves(axes: Axes, edges: np.ndarray, shares: np.ndarray) -> None:
    """Edges (E,), shares of voxels (N cases, E - 1)."""
    if len(shares) <= _FEW:
        for index, curve in enumerate(shares):
            label = "each case" if index == 0 else None
            axes.stairs(curve, edges, color="#35a7ff", lw=0.8, label=label)
    else:
        low, high = np.quantile(shares, (0.1, 0.9), axis=0)
        axes.stairs(
            high, edges, baseline=low, fill=True, color="#35a7ff", alpha=0.35, label="80 % of cases"
        )
    if len(shares) > 1:
        # Not the median: of cases whose gains differ, most have no voxel in any one bin.
        mean = shares.mean(axis=0)
        axes.stairs(mean, edges, color="black", lw=1.5, label="mean over cases")
    axes.set_xlim(edges[0], edges[-1])
    # A few bins of noise in air or of clipped values may tower over everything else.
    heights = np.sort(np.quantile(shares, 0.9, axis=0))
    highest, ordinary = heights[-1], heights[-_TOWERS - 1]
    axes.set_ylim(0, 1.08 * min(highest, _CUT * ordinary or highest) or 1.0)
    axes.set_yticks([])
    axes.grid(axis="x", alpha=0.3)
