"""`tumour_sizes.png`: how large the tumours are, and in how many parts.

`class_volumes.png`: how large each class is, and how often it occurs.

`example_<name>.png`: one case, every modality and three planes.

`intensities.png`: how bright each modality is, before and after the z-score.

`slice_presence.png`: at which height of the brain slices have tumour.

`tumour_places.png`: where in the brain the tumours lie.
"""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Ellipse
from matplotlib.ticker import FuncFormatter, MaxNLocator

from kerasseg import anatomy
from kerasseg.data_report.statistics import HEIGHT_BINS, TUMOUR, DataSet, Intensities
from kerasseg.datasets.case import Case
from kerasseg.figures.style import (
    WHOLE_TUMOUR,
    colour,
    edges_for,
    legend,
    show_slice,
    show_tumour,
    volume_axis,
)
from kerasseg.page import number
from kerasseg.records.normalise import brain_mask

_HALF_HEIGHT = 0.16
"""How far the dots of a row are strewn up and down."""


def draw_class_volumes(data_set: DataSet) -> Figure:
    """Left: a dot per case, with quartiles. Right: share of the cases that have the class, and of
    all tumour voxels."""
    names = [*data_set.classes] if len(data_set.classes) == 1 else [*data_set.classes, TUMOUR]
    figure = Figure(figsize=(11, 1.6 + 0.75 * len(names)), layout="constrained")
    volumes, frequencies = figure.subplots(1, 2, width_ratios=(1.6, 1))
    _draw_volumes(volumes, data_set, names)
    _draw_frequencies(frequencies, data_set, names)
    return figure


def _draw_volumes(axes: Axes, data_set: DataSet, names: list[str]) -> None:
    every = []
    for row, name in enumerate(names):
        values = np.array([data_set.volume(case, name) for case in data_set.with_tumour])
        values = values[values > 0]
        every.append(values)
        # Golden-ratio steps strew the dots evenly, and the same in every run.
        places = row + _HALF_HEIGHT * (2 * (np.arange(values.size) * 0.618034 % 1) - 1)
        axes.scatter(
            values,
            places,
            s=14,
            color=colour(name, data_set.classes),
            alpha=float(np.clip(60 / max(values.size, 1), 0.3, 0.9)),
            linewidths=0,
        )
        if values.size > 4:
            low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
            axes.barh(row, high - low, 0.5, left=low, fill=False, edgecolor="black")
            axes.vlines(median, row - 0.25, row + 0.25, color="black", lw=2)
    volume_axis(axes, np.concatenate(every))
    axes.set_yticks(range(len(names)), _row_titles(data_set, names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set(title="Size in the cases that have it", xlabel=data_set.unit)
    axes.grid(axis="x", alpha=0.3)


def _draw_frequencies(axes: Axes, data_set: DataSet, names: list[str]) -> None:
    tumour = sum(data_set.voxels.values())
    for row, name in enumerate(names):
        shade = colour(name, data_set.classes)
        cases = data_set.cases_with.get(name, len(data_set.with_tumour))
        apart = 0.2 if len(names) > 1 and name in data_set.voxels else 0.0
        _draw_bar(axes, row - apart, cases / len(data_set.labelled), "of cases", shade, 1.0)
        if apart:
            share = data_set.voxels[name] / tumour
            _draw_bar(axes, row + apart, share, "of tumour voxels", shade, 0.45)
    axes.set_yticks(range(len(names)), [""] * len(names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set(title="How often", xlabel="%", xlim=(0, 100))


def _draw_bar(axes: Axes, place: float, share: float, words: str, shade: str, alpha: float) -> None:
    axes.barh(place, 100 * share, 0.36, color=shade, alpha=alpha)
    inside = share > 0.6
    axes.annotate(
        f"{100 * share:.3g} % {words}",
        (100 * share, place),
        (-4 if inside else 4, 0),
        textcoords="offset points",
        ha="right" if inside else "left",
        va="center",
        fontsize=8,
    )


def _row_titles(data_set: DataSet, names: list[str]) -> list[str]:
    return [name if name in data_set.classes else "whole tumour" for name in names]


_PLANES = (("axial", 0), ("coronal", 1), ("sagittal", 2))
_TARGETS = {"subregions": "subregions", "tumour": "binary"}
"""Classes of a data set -> the target whose channels have their colours."""

_STRETCHED = 0.8
"""Height over width of a plane whose voxels' height nobody knows."""


def draw_example(case: Case, title: str, *, knows_space: bool) -> Figure:
    """Above: every modality in the axial slice with most tumour. Below: that slice, and the
    coronal and sagittal ones with most, with the segmentation over FLAIR or the first modality.

    The middle of the brain where there is no tumour; one row where there is one slice only.
    """
    box, _ = brain_mask(case.image, case.label, case.box)
    image = case.image[box]
    label = np.zeros(image.shape[:3], np.uint8) if case.label is None else case.label[box]
    places = [_place(label, axis) for axis, _ in enumerate(label.shape)]
    target = _TARGETS[case.classes]
    channels = image.shape[-1]
    names = list(case.modalities)
    base = names.index(anatomy.FLAIR) if anatomy.FLAIR in names else 0
    shown = [anatomy.MODALITY_TITLES.get(m, m) for m in names]

    def draw(axes: Axes, title: str, axis: int, channel: int, *, overlay: bool) -> None:
        aspect = _aspect(case, label.shape, axis, knows_space)
        show_slice(axes, _slice(image[..., channel], axis, places[axis]), title, aspect)
        if overlay:
            show_tumour(axes, _slice(label, axis, places[axis]), target, aspect)

    flat = label.shape[0] == 1
    layout = ConstrainedLayoutEngine(
        rect=(0, 0.05, 1, 0.95) if case.label is not None else (0, 0, 1, 1)
    )
    if flat:
        figure = Figure(figsize=(3.2 * (channels + 1), 4.2), layout=layout)
        *above, panel = figure.subplots(1, channels + 1)
        draw(panel, "segmentation", 0, base, overlay=True)
    else:
        figure = Figure(figsize=(2.9 * max(channels, len(_PLANES)), 7.4), layout=layout)
        cells = figure.add_gridspec(2, columns := math.lcm(channels, len(_PLANES)))
        wide, step = columns // channels, columns // len(_PLANES)
        above = [figure.add_subplot(cells[0, i * wide : (i + 1) * wide]) for i in range(channels)]
        for i, (plane, axis) in enumerate(_PLANES):
            panel = figure.add_subplot(cells[1, i * step : (i + 1) * step])
            draw(panel, f"{plane} {places[axis] + box[axis].start}", axis, base, overlay=True)
    for channel, axes in enumerate(above):
        draw(axes, shown[channel], 0, channel, overlay=False)
    figure.suptitle(title, fontsize=12)
    if case.label is not None:
        legend(figure, target)
    return figure


def _place(label: np.ndarray, axis: int) -> int:
    """The slice with most tumour along an axis; the middle one where there is none."""
    areas = np.count_nonzero(label, axis=tuple(a for a in range(3) if a != axis))
    return int(areas.argmax()) if areas.any() else label.shape[axis] // 2


def _slice(volume: np.ndarray, axis: int, index: int) -> np.ndarray:
    plane = volume.take(index, axis=axis)
    return plane if axis == 0 else plane[::-1]  # the crown of the head is up


def _aspect(case: Case, shape: tuple[int, ...], axis: int, knows_space: bool) -> float:
    rows, columns = (a for a in range(3) if a != axis)
    if not knows_space and axis != 0:
        return _STRETCHED * shape[columns] / shape[rows]
    return case.spacing[rows] / case.spacing[columns]


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


_PICTURE = ("in the picture", 2, 1, "left → right", "bottom → top")
_VIEWS = (
    ("seen from below", 2, 1, "right → left", "back → front"),
    ("seen from the front", 2, 0, "right → left", "bottom → top"),
    ("seen from the left", 1, 0, "front → back", "bottom → top"),
)
"""Title; axes of (D, H, W) to the right and upwards; what they run from and to."""
_DOTS = "#333333"


def draw_tumour_places(data_set: DataSet) -> Figure:
    """A dot per tumour at its centre of mass in the brain's box, from three sides."""
    centres = np.array([case.centre for case in data_set.with_tumour])
    planes = (_PICTURE,) if data_set.flat else _VIEWS
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


_MANY_PARTS = 10


def draw_tumour_sizes(data_set: DataSet) -> Figure:
    """Cases by volume, by share of the brain and by number of connected parts."""
    figure = Figure(figsize=(11, 3.3), layout="constrained")
    volume, share, parts = figure.subplots(1, 3)
    cases = data_set.with_tumour
    _histogram(volume, np.array([data_set.volume(case) for case in cases]))
    volume.set(title="Tumour size", xlabel=data_set.unit)
    percent = [100 * (c.tumour_voxels or 0) / max(c.brain_voxels, 1) for c in cases]
    _histogram(share, np.array(percent))
    share.set(title="Share of the brain", xlabel="%")
    counts = np.bincount(np.minimum([c.components or 0 for c in cases], _MANY_PARTS))
    parts.bar(np.arange(1, counts.size), counts[1:], color=WHOLE_TUMOUR, width=0.8)
    names = [str(n) for n in range(1, _MANY_PARTS)] + [f"{_MANY_PARTS}+"]
    parts.set_xticks(range(1, _MANY_PARTS + 1), names)
    parts.set(title="Connected parts", xlabel="parts", xlim=(0.3, _MANY_PARTS + 0.7))
    for axes in (volume, share, parts):
        axes.set_ylabel("cases")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", alpha=0.3)
    return figure


def _histogram(axes: Axes, values: np.ndarray) -> None:
    axes.hist(values, list(edges_for(values)), color=WHOLE_TUMOUR, rwidth=0.95)
    median = float(np.median(values))
    axes.axvline(median, color="#e6194b", lw=1.5, label=f"median {number(median)}")
    volume_axis(axes, values)
    axes.legend(fontsize=8)
