"""Figures of a data set: sizes, places, intensities, and single cases."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from kerasseg import anatomy
from kerasseg.data_report.statistics import HEIGHT_BINS, TUMOUR, DataSet, Intensities
from kerasseg.datasets.case import Case
from kerasseg.figures import style
from kerasseg.figures.volumes import planes_through
from kerasseg.page import format_significant
from kerasseg.records.normalise import brain_mask

_TARGETS = {"subregions": "subregions", "tumour": "binary"}
"""Classes of a data set -> the target whose channels have their colours."""
_STRETCHED = 0.8
"""Height over width of a plane across slices whose distance is not known."""
_MANY_PARTS = 10
Z_EDGES = np.linspace(-4, 6, 101)
"""Edges of the bins of z-scores."""
_BINS = 100
_FEW_CASES = 6
"""Cases up to which each has a curve of its own. For more cases, quantiles are drawn."""
_HIGH_BINS = 5
"""Bins that may rise above the axes, which end at `_CUT` times the highest other bin."""
_CUT = 2.5
_SPREAD_GAINS = 8.0
"""Largest over smallest upper end above which a linear axis would flatten most cases."""
_PICTURE_VIEW = ("in the picture", 2, 1, "left → right", "bottom → top")
_VIEWS = (
    ("seen from below", 2, 1, "right → left", "back → front"),
    ("seen from the front", 2, 0, "right → left", "bottom → top"),
    ("seen from the left", 1, 0, "front → back", "bottom → top"),
)
"""Title; the axes of (D, H, W) to the right and upwards; labels of these axes."""


def draw_class_volumes(data_set: DataSet) -> Figure:
    """Draw the size of each class, a dot per case, and beside it how often each class occurs."""
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
        if values.size > 4:
            style.draw_quartiles(axes, row, values)
        axes.scatter(
            values,
            row + style.jitter(np.arange(values.size)),
            s=14,
            color=_class_colour(name, data_set),
            alpha=style.dot_opacity(values.size),
            linewidths=0,
            zorder=3,
        )
    style.value_axis(axes, np.concatenate(every))
    style.label_rows(axes, [name if name in data_set.classes else "whole tumour" for name in names])
    axes.set(title="Size in the cases that have it", xlabel=data_set.unit)
    style.style_axes(axes, "x")


def _draw_frequencies(axes: Axes, data_set: DataSet, names: list[str]) -> None:
    tumour = sum(data_set.voxels.values())
    for row, name in enumerate(names):
        cases = data_set.cases_with.get(name, len(data_set.with_tumour))
        shares = [(cases / len(data_set.labelled), "of cases", 1.0)]
        if len(names) > 1 and name in data_set.voxels:
            shares.append((data_set.voxels[name] / tumour, "of tumour voxels", 0.45))
        for number, (share, meaning, opacity) in enumerate(shares):
            place = row + 0.2 * (2 * number - len(shares) + 1)
            colour = _class_colour(name, data_set)
            axes.barh(place, 100 * share, 0.36, color=colour, alpha=opacity)
            inside = share > 0.6
            axes.annotate(
                f"{100 * share:.3g} % {meaning}",
                (100 * share, place),
                (-4 if inside else 4, 0),
                textcoords="offset points",
                ha="right" if inside else "left",
                va="center",
                fontsize=style.REMARK,
            )
    style.label_rows(axes, [""] * len(names))
    axes.set(title="How often", xlabel="%", xlim=(0, 100))
    style.style_axes(axes, "")


def _class_colour(name: str, data_set: DataSet) -> str:
    return anatomy.COLOURS[name] if name in data_set.classes else style.WHOLE_TUMOUR


def draw_tumour_sizes(data_set: DataSet) -> Figure:
    """Draw histograms of the cases by volume, share of the brain, and number of parts."""
    figure, (volume, share, parts) = style.new_figure(11, 3.3, 1, 3)
    cases = data_set.with_tumour
    _draw_histogram(volume, np.array([data_set.volume(case) for case in cases]))
    volume.set(title="Tumour size", xlabel=data_set.unit)
    percent = [100 * (c.tumour_voxels or 0) / max(c.brain_voxels, 1) for c in cases]
    _draw_histogram(share, np.array(percent))
    share.set(title="Share of the brain", xlabel="%")
    counts = np.bincount(np.minimum([c.components or 0 for c in cases], _MANY_PARTS))
    parts.bar(np.arange(1, counts.size), counts[1:], color=style.WHOLE_TUMOUR, width=0.8)
    names = [str(n) for n in range(1, _MANY_PARTS)] + [f"{_MANY_PARTS}+"]
    parts.set_xticks(range(1, _MANY_PARTS + 1), names)
    parts.set(title="Connected parts", xlabel="parts", xlim=(0.3, _MANY_PARTS + 0.7))
    for axes in (volume, share, parts):
        axes.set_ylabel("cases")
        style.whole_ticks(axes, "y")
        style.style_axes(axes, "y")
    return figure


def _draw_histogram(axes: Axes, values: np.ndarray) -> None:
    """Draw a histogram of positive values with their median."""
    bins = int(np.clip(2 * np.sqrt(values.size), 8, 40))
    low, high = float(values.min()), float(values.max())
    if high > low:
        edges = (np.geomspace if style.is_wide(values) else np.linspace)(low, high, bins + 1)
    else:
        edges = np.array([0.8, 0.95, 1.05, 1.2]) * (low or 1.0)
    axes.hist(values, list(edges), color=style.WHOLE_TUMOUR, rwidth=0.95)
    median = float(np.median(values))
    axes.axvline(median, color=style.RED, lw=1.5, label=f"median {format_significant(median)}")
    style.value_axis(axes, values)
    axes.legend(frameon=False, fontsize=style.REMARK)


def draw_tumour_places(data_set: DataSet) -> Figure:
    """Draw each tumour's centre of mass in the box of its brain, seen from three sides."""
    centres = np.array([case.centre for case in data_set.with_tumour])
    views = (_PICTURE_VIEW,) if data_set.flat else _VIEWS
    figure = Figure(figsize=(3.7 * len(views), 3.9), layout="constrained")
    panels = np.ravel(figure.subplots(1, len(views)))
    for axes, (title, across, up, right, top) in zip(panels, views, strict=True):
        axes.add_patch(Ellipse((0.5, 0.5), 1, 1, facecolor="#f4f4f4", edgecolor="#bbbbbb"))
        axes.scatter(
            centres[:, across],
            centres[:, up],
            s=22,
            color=style.INK,
            alpha=style.dot_opacity(len(centres)),
            linewidths=0,
        )
        median = np.median(centres, axis=0)
        axes.plot(median[across], median[up], "+", color=style.RED, ms=14, mew=2, label="median")
        axes.set(title=title, xlabel=right, ylabel=top, xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        if up == 1:
            axes.invert_yaxis()  # H grows to the back, and the front is up
        axes.set_aspect("equal")
        axes.set_xticks((0, 0.5, 1))
        axes.set_yticks((0, 0.5, 1))
        axes.legend(frameon=False, fontsize=style.REMARK, loc="upper right")
        style.style_axes(axes, "")
    return figure


def draw_slice_presence(data_set: DataSet) -> Figure:
    """Draw which share of the axial slices has each class, over the height in the brain."""
    names = [*data_set.classes] if TUMOUR in data_set.classes else [TUMOUR, *data_set.classes]
    figure, axes = style.new_figure(8, 3.4)
    edges = np.linspace(0, 100, HEIGHT_BINS + 1)
    for name in names:
        share = np.mean([case.presence[name] for case in data_set.sliced], axis=0)
        whole = name == TUMOUR
        axes.stairs(
            100 * share,
            edges,
            color=_class_colour(name, data_set),
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
    axes.legend(frameon=False, fontsize=style.REMARK)
    style.style_axes(axes)
    return figure


def draw_intensities(data_set: DataSet) -> Figure:
    """Draw the distribution of each modality, as in the files and after the z-score.

    The curve is the mean over cases of the share of voxels in each bin. The band holds 80 % of the
    cases.
    """
    modalities = data_set.settings.modalities
    figure = Figure(figsize=(11, 0.4 + 2.3 * len(modalities)), layout="constrained")
    rows = figure.subplots(len(modalities), 2, squeeze=False)
    for (before, after), modality in zip(rows, modalities, strict=True):
        cases = [case.intensities[modality] for case in data_set.cases]
        edges, logarithmic = common_edges(cases)
        _draw_curves(before, edges, np.array([case.shares(edges) for case in cases]))
        if logarithmic:
            style.log_axis(before, edges[0], edges[-1])
        else:
            style.plain_ticks(before)
        _draw_curves(after, Z_EDGES, np.array([case.normalised_shares(Z_EDGES) for case in cases]))
        before.set_ylabel(anatomy.MODALITY_TITLES.get(modality, modality))
    rows[0, 0].set_title("as in the files")
    rows[0, 1].set_title("after the z-score")
    rows[0, 1].legend(frameon=False, fontsize=style.REMARK)
    rows[-1, 0].set_xlabel("intensity of the non-zero voxels")
    rows[-1, 1].set_xlabel("standard deviations from the case's mean")
    for axes in rows.ravel():
        style.style_axes(axes, "x")
    return figure


def common_edges(cases: list[Intensities]) -> tuple[np.ndarray, bool]:
    """Choose one range for all cases, except for a few that lie far off.

    Returns the edges of the bins, and True if they are logarithmic because gains differ much.
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
    """Draw shares of voxels (N cases, E - 1 bins) between edges (E,)."""
    if len(shares) <= _FEW_CASES:
        for index, curve in enumerate(shares):
            label = "each case" if index == 0 else None
            axes.stairs(curve, edges, color=style.BLUE, lw=0.8, label=label)
    else:
        low, high = np.quantile(shares, (0.1, 0.9), axis=0)
        axes.stairs(
            high,
            edges,
            baseline=low,
            fill=True,
            color=style.BLUE,
            alpha=0.35,
            label="80 % of cases",
        )
    if len(shares) > 1:
        # The median would be 0 in most bins if the gains of the cases differ.
        mean = shares.mean(axis=0)
        axes.stairs(mean, edges, color="black", lw=1.5, label="mean over cases")
    axes.set_xlim(edges[0], edges[-1])
    # A few bins, of noise in air or of clipped values, may be far higher than all others.
    heights = np.sort(np.quantile(shares, 0.9, axis=0))
    highest, ordinary = heights[-1], heights[-_HIGH_BINS - 1]
    axes.set_ylim(0, 1.08 * min(highest, _CUT * ordinary or highest) or 1.0)
    axes.set_yticks([])


def draw_example(case: Case, title: str, *, knows_space: bool) -> Figure:
    """Draw one case: every modality in the axial slice with the most tumour, and three planes.

    The planes show the segmentation over FLAIR, or over the first modality. Without a tumour they
    go through the middle of the brain. A picture has one row. `knows_space` is False if the
    distance of the slices is not known.
    """
    box, _ = brain_mask(case.image, case.label, case.box)
    image = case.image[box]
    label = np.zeros(image.shape[:3], np.uint8) if case.label is None else case.label[box]
    target = _TARGETS[case.classes]
    names, channels = list(case.modalities), image.shape[-1]
    base = names.index(anatomy.FLAIR) if anatomy.FLAIR in names else 0
    offset = [part.start for part in box]
    planes = planes_through(label > 0, np.ones(label.shape, bool), case.spacing, offset)
    figure = Figure(layout="constrained")
    if len(planes) == 1:
        figure.set_size_inches(3.2 * (channels + 1), 4.2)
        *above, below = figure.subplots(1, channels + 1)
        panels = {"segmentation": below}
    else:
        figure.set_size_inches(2.9 * max(channels, len(planes)), 7.4)
        cells = figure.add_gridspec(2, columns := math.lcm(channels, len(planes)))
        wide, step = columns // channels, columns // len(planes)
        above = [figure.add_subplot(cells[0, i * wide : (i + 1) * wide]) for i in range(channels)]
        panels = {
            plane.title: figure.add_subplot(cells[1, i * step : (i + 1) * step])
            for i, plane in enumerate(planes)
        }
    for channel, axes in enumerate(above):
        name = anatomy.MODALITY_TITLES.get(names[channel], names[channel])
        style.show_slice(axes, planes[0].cut(image[..., channel]), name, planes[0].aspect)
    for (name, axes), plane in zip(panels.items(), planes, strict=True):
        aspect, mask = plane.aspect, plane.cut(label)
        if not knows_space and plane.axis != 0:  # a plane of unknown height looks like a head
            aspect = _STRETCHED * mask.shape[1] / mask.shape[0]
        style.show_slice(axes, plane.cut(image[..., base]), name, aspect)
        style.show_label(axes, mask, target, aspect)
    figure.suptitle(title, fontsize=style.FIGURE_TITLE)
    if case.label is not None:
        style.label_legend(figure, target)
    return figure
