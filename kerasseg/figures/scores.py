"""Figures of scores: distributions, means and their intervals, differences between runs.

Unless a function says otherwise, its mappings go from a class to the values of all cases.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kerasseg.figures import style
from kerasseg.metrics.statistics import MeanInterval, PairedDifference, rank_correlation
from kerasseg.page import format_metric_name

_MOST_NAMED = 60
"""Cases up to which each has its name and its numbers."""
_WIDE = 30.0
"""Largest over median value above which a distance needs a logarithmic axis."""


def draw_case_heatmap(case_ids: Sequence[str], values: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the Dice of every case: a row per case, the best mean on top; grey is no value."""
    table = np.array([np.asarray(values[name], float) for name in values]).T
    with np.errstate(all="ignore"):
        means = np.where(np.isfinite(table), table, 0).sum(1) / np.maximum(
            np.isfinite(table).sum(1), 1
        )
    order = np.argsort(-means, kind="stable")
    named = len(case_ids) <= _MOST_NAMED
    height = float(np.clip(0.24 * len(case_ids), 1.2, 12))
    figure, axes = style.new_figure(2.6 + 0.8 * len(values), 1.2 + height)
    axes.set_facecolor("#bbbbbb")
    image = axes.imshow(table[order], vmin=0, vmax=1, cmap="RdYlGn", aspect="auto")
    axes.set_xticks(range(len(values)), list(values))
    axes.tick_params(length=0)
    if named:
        axes.set_yticks(range(len(case_ids)), [case_ids[i] for i in order], fontsize=style.REMARK)
        for row, column in np.ndindex(*table.shape):
            value = table[order][row, column]
            if np.isfinite(value):
                ink = "white" if value < 0.1 or value > 0.93 else "#222222"
                _write_cell(axes, row, column, f"{value:.2f}", ink, style.DENSE)
    else:
        axes.set_yticks([])
        axes.set_ylabel(f"{len(case_ids)} cases, best above")
    axes.spines[:].set_visible(False)
    axes.set_title("Dice of every case")
    figure.colorbar(image, ax=axes, label="Dice", shrink=min(1.0, 2.5 / height + 0.3))
    return figure


def draw_confusion_matrix(matrix: np.ndarray, classes: Sequence[str]) -> Figure:
    """Draw which share of each true class was predicted as which, with the number of voxels.

    `matrix` has the voxels (true, predicted) in the order of `classes`.
    """
    total = matrix.sum(axis=1, keepdims=True)
    shares = matrix / np.maximum(total, 1)
    figure, axes = style.new_figure(1.9 + 1.05 * len(classes), 1.3 + 0.95 * len(classes))
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    for row, column in np.ndindex(*matrix.shape):
        share = shares[row, column]
        voxels = _format_count(int(matrix[row, column]))
        text = f"{share:.1%}\n{voxels}" if total[row, 0] else "none"
        ink = "white" if share > 0.55 else "#222222"
        _write_cell(axes, row, column, text, ink, style.TICK)
    axes.set_xticks(range(len(classes)), list(classes))
    axes.set_yticks(range(len(classes)), list(classes))
    axes.tick_params(length=0)
    axes.set(xlabel="predicted", ylabel="true", title="Confusion matrix of voxels")
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    return figure


def _write_cell(axes: Axes, row: int, column: int, text: str, ink: str, size: int) -> None:
    axes.text(column, row, text, ha="center", va="center", fontsize=size, color=ink)


def _format_count(count: int) -> str:
    """Format a number of voxels in few characters: 4.5 k, 12 M."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g} {letter}"
    return str(count)


def draw_cumulative_dice(values: Mapping[str, Sequence[float]]) -> Figure:
    """Draw which share of the cases has at least which Dice.

    Curves from the fourth class on are dashed, because their colours are near those of others.
    """
    figure, axes = style.new_figure(6.4, 4.4)
    for place, (name, colour) in enumerate(style.class_colours(values).items()):
        array = np.sort(np.asarray(values[name], float))
        array = array[np.isfinite(array)]
        if not array.size:
            continue
        steps = np.concatenate([[0.0], array, [1.0]])
        share = np.concatenate([[1.0], 1 - np.arange(array.size) / array.size, [0.0]])
        share[-1] = (array >= 1).mean()
        dashes = "-" if place < 3 else (0, (4, 1.5))
        axes.step(steps, share, where="pre", color=colour, lw=2, ls=dashes, label=name)
    axes.set(
        xlim=(0, 1.01),
        ylim=(0, 1.02),
        xlabel="Dice",
        ylabel="share of the cases with at least this Dice",
        title="How many cases are how good",
    )
    axes.legend(frameon=False)
    style.style_axes(axes)
    return figure


def draw_dice_against_volume(
    volumes: Mapping[str, Sequence[float]], dice: Mapping[str, Sequence[float]]
) -> Figure:
    """Draw the Dice of each case over the true volume in mL, a panel per class.

    Cases whose truth is empty have no place on a logarithmic axis and are counted in the title.
    """
    figure, panels = style.panel_grid(len(dice), height=3.1)
    for axes, (name, colour) in zip(panels, style.class_colours(dice).items(), strict=True):
        x, y = np.asarray(volumes[name], float), np.asarray(dice[name], float)
        shown = (x > 0) & np.isfinite(y)
        style.draw_dots(axes, x[shown], y[shown], colour)
        title = name
        empty = int((x <= 0).sum())
        if shown.sum() > 2:
            title += f", rank correlation {rank_correlation(x[shown], y[shown]):.2f}"
        if empty:
            title += f"\n({empty} case{'' if empty == 1 else 's'} without it in the truth)"
        axes.set_title(title)
        style.value_axis(axes, x[shown])
        axes.set(ylim=(-0.03, 1.03), xlabel="true volume [mL]", ylabel="Dice")
        style.style_axes(axes)
    figure.suptitle("Dice against tumour volume")
    return figure


def draw_mean_intervals(
    means: Mapping[str, Mapping[str, MeanInterval]], labels: Mapping[str, str], confidence: float
) -> Figure:
    """Draw a panel per metric and a row per class: the mean over cases and its interval.

    Args:
        means: Class -> metric -> mean and interval.
        labels: Metric -> its name and unit; these metrics are drawn.
        confidence: Confidence of the intervals, such as 0.95.
    """
    colours = style.class_colours(means)
    width = max(6.0, 3.4 * len(labels))
    figure = Figure(figsize=(width, 1.5 + 0.42 * len(means)), layout="constrained")
    panels = figure.subplots(1, len(labels), sharey=True, squeeze=False)[0]
    for axes, (metric, label) in zip(panels, labels.items(), strict=True):
        for row, (name, found) in enumerate(means.items()):
            value = found[metric]
            if value.low == value.low:
                axes.plot([value.low, value.high], [row, row], color=colours[name], lw=4, alpha=0.7)
            axes.plot(value.mean, row, "o", ms=7, color=colours[name], mec=style.INK, mew=0.8)
            axes.annotate(
                f"{value.mean:.3g}",
                (value.mean, row),
                (0, 7),
                textcoords="offset points",
                ha="center",
                fontsize=style.REMARK,
            )
        axes.set_xlabel(label)
        axes.margins(x=0.15)
        style.style_axes(axes, "x")
    panels[0].set_yticks(range(len(means)), list(means))
    panels[0].set_ylim(len(means) - 0.5, -0.7)
    figure.suptitle(f"Means over cases and their {100 * confidence:g} % intervals")
    return figure


def draw_metric_correlation(values: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Draw the rank correlation of each pair of metrics; `values` go from metric to cases."""
    names = list(values)
    arrays = [np.asarray(values[name], float) for name in names]
    table = np.array([[rank_correlation(a, b) for b in arrays] for a in arrays])
    side = 1.8 + 0.62 * len(names)
    figure, axes = style.new_figure(side + 0.9, side)
    axes.set_facecolor("#dddddd")
    image = axes.imshow(table, vmin=-1, vmax=1, cmap="RdBu_r")
    for row, column in np.ndindex(*table.shape):
        value = table[row, column]
        if np.isfinite(value):
            colour = "white" if abs(value) > 0.7 else "#222222"
            _write_cell(axes, row, column, f"{value:.2f}", colour, style.REMARK)
    labels = [format_metric_name(name, unit=False) for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), labels)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    figure.colorbar(image, ax=axes, label="rank correlation", shrink=0.75)
    return figure


def draw_metric_distribution(
    values: Mapping[str, Sequence[float]],
    by_rule: Mapping[str, Sequence[bool]],
    title: str,
    label: str,
    *,
    share: bool,
) -> Figure:
    """Draw a row per class: a dot per case, quartiles as a box, the mean as a diamond.

    Args:
        values: Class -> value of each case.
        by_rule: Class -> whether the rule for empty masks decided the value, which is a cross then.
        label: Name and unit of the metric.
        share: True for a metric from 0 to 1.
    """
    figure, axes = style.new_figure(7.2, 1.5 + 0.72 * len(values))
    colours = style.class_colours(values)
    every = np.concatenate([np.asarray(v, float) for v in values.values()])
    every = every[np.isfinite(every)]
    for row, (name, numbers) in enumerate(values.items()):
        array, rule = np.asarray(numbers, float), np.asarray(by_rule[name], bool)
        known = np.isfinite(array)
        array, rule = array[known], rule[known]
        heights = row + style.jitter(np.arange(array.size))
        dots: dict[str, Any] = {
            "color": colours[name],
            "alpha": style.dot_opacity(array.size),
            "zorder": 3,
        }
        axes.scatter(array[~rule], heights[~rule], s=20, linewidths=0, **dots)
        axes.scatter(array[rule], heights[rule], s=26, marker="x", linewidths=1.4, **dots)
        if array.size > 3:
            style.draw_quartiles(axes, row, array)
        if array.size:
            axes.plot(array.mean(), row, "D", ms=6, mfc="white", mec=style.INK, zorder=4)
    wide = not share and every.size and every.max() > _WIDE * max(float(np.median(every)), 1e-9)
    if wide:
        axes.set_xscale("symlog", linthresh=1.0)
        axes.set_xlim(0, None)
        style.plain_ticks(axes)
    elif share:
        axes.set_xlim(-0.02, 1.02)
    style.label_rows(axes, list(values))
    legend = "diamond: mean; box: quartiles"
    if any(any(rule) for rule in by_rule.values()):
        legend += "; cross: decided by the rule for empty masks"
    axes.set_xlabel(f"{label}\n({legend})")
    axes.set_title(title)
    style.style_axes(axes, "x")
    return figure


def draw_paired_differences(
    differences: Mapping[str, PairedDifference], first: str, second: str, label: str
) -> Figure:
    """Draw the difference of two runs in each case, a row per class.

    The mean and its interval are dark; the p value of Wilcoxon's signed-rank test stands right.

    Args:
        differences: Class -> differences, the second run minus the first.
        first: Name of the first run.
        second: Name of the second run.
        label: Name and unit of the metric.
    """
    figure, axes = style.new_figure(9, 1.5 + 0.62 * len(differences))
    axes.axvline(0, color=style.LINE, lw=1)
    for row, (name, colour) in enumerate(style.class_colours(differences).items()):
        found = differences[name]
        values = np.asarray(found.values)
        axes.scatter(
            values,
            row + style.jitter(np.arange(values.size)),
            s=22,
            color=colour,
            lw=0,
            alpha=style.dot_opacity(values.size),
        )
        mean = found.mean
        if mean.low == mean.low:
            axes.plot([mean.low, mean.high], [row, row], color=style.INK, lw=2.5)
        axes.plot(mean.mean, row, "D", ms=6, mfc="white", mec=style.INK, zorder=4)
        text = f"{mean.mean:+.3g}, p: {found.formatted_p}"
        axes.text(
            1.01, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=style.TICK
        )
    style.label_rows(axes, list(differences))
    axes.set_xlabel(f"difference in {label}\n(right of 0: {second} is higher than {first})")
    axes.set_title(f"{second} against {first}, case by case")
    style.style_axes(axes, "x")
    return figure


def draw_precision_against_recall(
    precision: Mapping[str, Sequence[float]], recall: Mapping[str, Sequence[float]]
) -> Figure:
    """Draw recall over precision of each case on lines of equal Dice, a panel per class.

    Above the diagonal a tumour was drawn too large, below it too small.
    """
    figure, panels = style.panel_grid(len(precision), height=3.3)
    grid = np.linspace(0.001, 1, 200)
    for axes, (name, colour) in zip(panels, style.class_colours(precision).items(), strict=True):
        for dice in (0.2, 0.4, 0.6, 0.8):
            below = 2 * grid - dice
            line = np.where(below > 0, dice * grid / np.where(below > 0, below, 1), np.nan)
            line[line > 1.0] = np.nan
            axes.plot(grid, line, color="#cccccc", lw=1)
            axes.text(
                1.0,
                dice / (2 - dice),
                f"{dice:g} ",
                fontsize=style.DENSE,
                color="#888888",
                ha="right",
            )
        axes.plot([0, 1], [0, 1], color=style.LINE, lw=1, ls=":")
        style.draw_dots(axes, np.asarray(precision[name]), np.asarray(recall[name]), colour)
        axes.set(
            xlim=(-0.03, 1.03),
            ylim=(-0.03, 1.03),
            xlabel="precision",
            ylabel="recall",
            title=name,
            aspect="equal",
        )
        style.style_axes(axes, "")
    figure.suptitle("Precision and recall of every case (grey lines: equal Dice)")
    return figure


def draw_run_means(means: Mapping[str, Mapping[str, MeanInterval]], label: str) -> Figure:
    """Draw the mean of one metric and its interval: a group per class and a bar per run.

    `means` go from run to class; `label` is the name and unit of the metric.
    """
    classes = list(next(iter(means.values())))
    figure, axes = style.new_figure(max(6.5, 1.2 * len(classes) + 2), 3.9)
    width = 0.8 / len(means)
    for place, (run, row) in enumerate(means.items()):
        for group, name in enumerate(classes):
            value = row[name]
            x = group + (place - (len(means) - 1) / 2) * width
            colour = style.RUN_COLOURS[place % len(style.RUN_COLOURS)]
            axes.bar(x, value.mean, 0.9 * width, color=colour, label=run if group == 0 else None)
            if value.low == value.low:
                axes.plot([x, x], [value.low, value.high], color=style.INK, lw=1.6)
    axes.set_xticks(range(len(classes)), classes)
    axes.set(ylabel=label, title=f"{label}: means and their intervals")
    style.legend_below(axes)
    style.style_axes(axes, "y")
    return figure
