"""The means of several runs.

Dice of every case and class at a glance.

Which class is taken for which.

Which share of the cases reaches which Dice.

Whether small tumours are found worse.

Means with their intervals.

Which metrics say the same.

How one metric spreads over the cases.

Two runs on the same cases.

Too much or too little: precision against recall of every case.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kerasseg.evaluation.statistics import MeanInterval, PairedDifference, rank_correlation
from kerasseg.figures.style import (
    RUN_COLOURS,
    class_panels,
    clean,
    dot_alpha,
    logarithmic,
    plain_numbers,
    shades,
    strewn,
)
from kerasseg.page import metric_name

_MOST_NAMED = 60


def draw_case_heatmap(case_ids: Sequence[str], values: Mapping[str, Sequence[float]]) -> Figure:
    """A row per case, the best mean above, a column per class; grey: no value."""
    table = np.array([np.asarray(values[name], float) for name in values]).T
    with np.errstate(all="ignore"):
        means = np.where(np.isfinite(table), table, 0).sum(1) / np.maximum(
            np.isfinite(table).sum(1), 1
        )
    order = np.argsort(-means, kind="stable")
    named = len(case_ids) <= _MOST_NAMED
    height = float(np.clip(0.24 * len(case_ids), 1.2, 12))
    figure = Figure(figsize=(2.6 + 0.8 * len(values), 1.2 + height), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("#bbbbbb")
    image = axes.imshow(table[order], vmin=0, vmax=1, cmap="RdYlGn", aspect="auto")
    axes.set_xticks(range(len(values)), list(values))
    axes.tick_params(length=0)
    if named:
        axes.set_yticks(range(len(case_ids)), [case_ids[i] for i in order], fontsize=8)
        for row, column in np.ndindex(*table.shape):
            value = table[order][row, column]
            if np.isfinite(value):
                shade = "white" if value < 0.1 or value > 0.93 else "#222222"
                axes.text(
                    column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=shade
                )
    else:
        axes.set_yticks([])
        axes.set_ylabel(f"{len(case_ids)} cases, best above")
    axes.spines[:].set_visible(False)
    axes.set_title("Dice of every case")
    figure.colorbar(image, ax=axes, label="Dice", shrink=min(1.0, 2.5 / height + 0.3))
    return figure


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


def draw_cumulative_dice(values: Mapping[str, Sequence[float]]) -> Figure:
    """A curve per class, dashed where it shares its colour with another one: share of the cases
    whose Dice is at least x."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    for place, (name, colour) in enumerate(shades(values).items()):
        array = np.sort(np.asarray(values[name], float))
        array = array[np.isfinite(array)]
        if not array.size:
            continue
        steps = np.concatenate([[0.0], array, [1.0]])
        share = np.concatenate([[1.0], 1 - np.arange(array.size) / array.size, [0.0]])
        share[-1] = (array >= 1).mean()
        style = "-" if place < 3 else (0, (4, 1.5))
        axes.step(steps, share, where="pre", color=colour, lw=2, ls=style, label=name)
    axes.set(
        xlim=(0, 1.01),
        ylim=(0, 1.02),
        xlabel="Dice",
        ylabel="share of the cases with at least this Dice",
        title="How many cases are how good",
    )
    axes.legend(frameon=False)
    clean(axes)
    return figure


def draw_dice_against_volume(
    volumes: Mapping[str, Sequence[float]], dice: Mapping[str, Sequence[float]]
) -> Figure:
    """A panel per class: a dot per case, true volume in mL against Dice; empty truths, which have
    no place on the logarithmic axis, are counted above."""
    figure, panels = class_panels(len(dice), height=3.1)
    for axes, (name, colour) in zip(panels, shades(dice).items(), strict=True):
        x, y = np.asarray(volumes[name], float), np.asarray(dice[name], float)
        shown = (x > 0) & np.isfinite(y)
        axes.scatter(
            x[shown], y[shown], s=26, color=colour, alpha=0.85, lw=0.5, edgecolor="#333333"
        )
        words = name
        empty = int((x <= 0).sum())
        if shown.sum() > 2:
            words += f", rank correlation {rank_correlation(x[shown], y[shown]):.2f}"
        if empty:
            words += f"\n({empty} case{'' if empty == 1 else 's'} without it in the truth)"
        axes.set_title(words, fontsize=10)
        logarithmic(axes, x[shown])
        axes.set(ylim=(-0.03, 1.03), xlabel="true volume [mL]", ylabel="Dice")
        clean(axes)
    figure.suptitle("Dice against tumour volume")
    return figure


def draw_mean_intervals(
    means: Mapping[str, Mapping[str, MeanInterval]], labels: Mapping[str, str], confidence: float
) -> Figure:
    """A panel per metric of `labels` (metric -> its words and unit), a row per class of `means`
    (class -> metric -> mean and interval)."""
    colours = shades(means)
    width = max(6.0, 3.4 * len(labels))
    figure = Figure(figsize=(width, 1.5 + 0.42 * len(means)), layout="constrained")
    panels = figure.subplots(1, len(labels), sharey=True, squeeze=False)[0]
    for axes, (metric, words) in zip(panels, labels.items(), strict=True):
        for row, (name, found) in enumerate(means.items()):
            value = found[metric]
            if value.low == value.low:
                axes.plot([value.low, value.high], [row, row], color=colours[name], lw=4, alpha=0.7)
            axes.plot(value.mean, row, "o", ms=7, color=colours[name], mec="#333333", mew=0.8)
            axes.annotate(
                f"{value.mean:.3g}",
                (value.mean, row),
                (0, 7),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
        axes.set_xlabel(words)
        axes.margins(x=0.15)
        clean(axes, "x")
    panels[0].set_yticks(range(len(means)), list(means))
    panels[0].set_ylim(len(means) - 0.5, -0.7)
    figure.suptitle(f"Means over cases and their {100 * confidence:g} % intervals")
    return figure


def draw_metric_correlation(values: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Rank correlation over cases of each pair of metrics (metric -> value per case)."""
    names = list(values)
    arrays = [np.asarray(values[name], float) for name in names]
    table = np.array([[rank_correlation(a, b) for b in arrays] for a in arrays])
    side = 1.8 + 0.62 * len(names)
    figure = Figure(figsize=(side + 0.9, side), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("#dddddd")
    image = axes.imshow(table, vmin=-1, vmax=1, cmap="RdBu_r")
    for row, column in np.ndindex(*table.shape):
        value = table[row, column]
        if np.isfinite(value):
            colour = "white" if abs(value) > 0.7 else "#222222"
            axes.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour
            )
    words = [metric_name(name, unit=False) for name in names]
    axes.set_xticks(range(len(names)), words, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), words)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    figure.colorbar(image, ax=axes, label="rank correlation", shrink=0.75)
    return figure


_WIDE = 30.0
"""Largest over median value above which a distance needs a logarithmic axis."""


def draw_metric_distribution(
    values: Mapping[str, Sequence[float]],
    by_rule: Mapping[str, Sequence[bool]],
    title: str,
    label: str,
    *,
    share: bool,
) -> Figure:
    """A row per class: a dot per case, quartiles as a box, the mean as a diamond.

    `by_rule` says which values a rule for empty masks decided: crosses. `share`: the axis is 0..1.
    """
    figure = Figure(figsize=(7.2, 1.5 + 0.72 * len(values)), layout="constrained")
    axes = figure.subplots()
    colours = shades(values)
    every = np.concatenate([np.asarray(v, float) for v in values.values()])
    every = every[np.isfinite(every)]
    for row, (name, numbers) in enumerate(values.items()):
        array, rule = np.asarray(numbers, float), np.asarray(by_rule[name], bool)
        known = np.isfinite(array)
        array, rule = array[known], rule[known]
        heights = strewn(row, array.size)
        dots: dict[str, Any] = {"color": colours[name], "alpha": dot_alpha(array.size), "zorder": 3}
        axes.scatter(array[~rule], heights[~rule], s=20, linewidths=0, **dots)
        axes.scatter(array[rule], heights[rule], s=26, marker="x", linewidths=1.4, **dots)
        if array.size > 3:
            low, median, high = np.quantile(array, (0.25, 0.5, 0.75))
            axes.barh(row, high - low, 0.56, left=low, color="#f0f0f0", edgecolor="#333333", lw=1)
            axes.vlines(median, row - 0.28, row + 0.28, color="#333333", lw=2, zorder=2)
        if array.size:
            axes.plot(array.mean(), row, "D", ms=6, mfc="white", mec="#333333", zorder=4)
    wide = not share and every.size and every.max() > _WIDE * max(float(np.median(every)), 1e-9)
    if wide:
        axes.set_xscale("symlog", linthresh=1.0)
        axes.set_xlim(0, None)
        plain_numbers(axes)
    elif share:
        axes.set_xlim(-0.02, 1.02)
    axes.set_yticks(range(len(values)), list(values))
    axes.set_ylim(len(values) - 0.5, -0.5)
    words = "diamond: mean; box: quartiles"
    if any(any(rule) for rule in by_rule.values()):
        words += "; cross: decided by the rule for empty masks"
    axes.set_xlabel(f"{label}\n({words})")
    axes.set_title(title)
    clean(axes, "x")
    return figure


def draw_paired_differences(
    differences: Mapping[str, PairedDifference], first: str, second: str, label: str
) -> Figure:
    """A row per class: a dot per case, `second` minus `first`; the mean and its interval in black,
    the p value of Wilcoxon's signed-rank test at the right."""
    figure = Figure(figsize=(9, 1.5 + 0.62 * len(differences)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="#999999", lw=1)
    for row, (name, colour) in enumerate(shades(differences).items()):
        found = differences[name]
        values = np.asarray(found.values)
        axes.scatter(
            values, strewn(row, values.size), s=22, color=colour, lw=0, alpha=dot_alpha(values.size)
        )
        mean = found.mean
        if mean.low == mean.low:
            axes.plot([mean.low, mean.high], [row, row], color="#333333", lw=2.5)
        axes.plot(mean.mean, row, "D", ms=6, mfc="white", mec="#333333", zorder=4)
        words = f"{mean.mean:+.3g}, p: {found.p_in_words}"
        axes.text(1.01, row, words, transform=axes.get_yaxis_transform(), va="center", fontsize=9)
    axes.set_yticks(range(len(differences)), list(differences))
    axes.set_ylim(len(differences) - 0.5, -0.5)
    axes.set_xlabel(f"difference in {label}\n(right of 0: {second} is higher than {first})")
    axes.set_title(f"{second} against {first}, case by case")
    clean(axes, "x")
    return figure


def draw_precision_against_recall(
    precision: Mapping[str, Sequence[float]], recall: Mapping[str, Sequence[float]]
) -> Figure:
    """A panel per class, a dot per case, on lines of equal Dice. Above the diagonal a case is
    drawn too large, below it too small."""
    figure, panels = class_panels(len(precision), height=3.3)
    grid = np.linspace(0.001, 1, 200)
    for axes, (name, colour) in zip(panels, shades(precision).items(), strict=True):
        for dice in (0.2, 0.4, 0.6, 0.8):
            below = 2 * grid - dice
            line = np.where(below > 0, dice * grid / np.where(below > 0, below, 1), np.nan)
            line[line > 1.0] = np.nan
            axes.plot(grid, line, color="#cccccc", lw=1)
            axes.text(1.0, dice / (2 - dice), f"{dice:g} ", fontsize=7, color="#888888", ha="right")
        axes.plot([0, 1], [0, 1], color="#999999", lw=1, ls=":")
        axes.scatter(
            precision[name], recall[name], s=26, color=colour, lw=0.5, edgecolor="#333333", zorder=3
        )
        axes.set(
            xlim=(-0.03, 1.03),
            ylim=(-0.03, 1.03),
            xlabel="precision",
            ylabel="recall",
            title=name,
            aspect="equal",
        )
        clean(axes, "")
    figure.suptitle("Precision and recall of every case (grey lines: equal Dice)")
    return figure


def draw_run_means(means: Mapping[str, Mapping[str, MeanInterval]], label: str) -> Figure:
    """Run -> class -> mean and interval of one metric: a group per class, a bar per run."""
    classes = list(next(iter(means.values())))
    figure = Figure(figsize=(max(6.5, 1.2 * len(classes) + 2), 3.9), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(means)
    for place, (run, row) in enumerate(means.items()):
        for group, name in enumerate(classes):
            value = row[name]
            x = group + (place - (len(means) - 1) / 2) * width
            colour = RUN_COLOURS[place % len(RUN_COLOURS)]
            axes.bar(x, value.mean, 0.9 * width, color=colour, label=run if group == 0 else None)
            if value.low == value.low:
                axes.plot([x, x], [value.low, value.high], color="#333333", lw=1.6)
    axes.set_xticks(range(len(classes)), classes)
    axes.set(ylabel=label, title=f"{label}: means and their intervals")
    axes.legend(
        frameon=False, ncols=min(len(means), 3), loc="upper center", bbox_to_anchor=(0.5, -0.08)
    )
    clean(axes, "y")
    return figure
