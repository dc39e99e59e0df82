"""Predicted against true volume.

Bland-Altman plot of volumes.

How much was drawn too much and too little, case by case.

Lesions found, missed and invented.

Which lesions are missed.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from kerasseg.figures.style import class_panels, clean, logarithmic, nothing, shades


def draw_bland_altman(
    truth: Mapping[str, Sequence[float]], prediction: Mapping[str, Sequence[float]]
) -> Figure:
    """A panel per class: mean of both volumes against their difference, mL; the mean difference
    and, dashed, mean +- 1.96 standard deviations (Bland and Altman 1986)."""
    figure, panels = class_panels(len(truth), height=3.1)
    for axes, (name, colour) in zip(panels, shades(truth).items(), strict=True):
        x, y = np.asarray(truth[name], float), np.asarray(prediction[name], float)
        difference = y - x
        bias = float(difference.mean())
        axes.axhline(0, color="#999999", lw=1)
        axes.axhline(bias, color="#333333", lw=1.5)
        words = f"{name}: bias {bias:+.2f} mL"
        if x.size > 2:
            spread = 1.96 * float(difference.std(ddof=1))
            for limit in (bias - spread, bias + spread):
                axes.axhline(limit, color="#333333", lw=1, ls=(0, (4, 2)))
            words += f"\nlimits {bias - spread:+.2f} to {bias + spread:+.2f} mL"
        axes.scatter(
            (x + y) / 2, difference, s=26, color=colour, lw=0.5, edgecolor="#333333", zorder=3
        )
        axes.set_title(words, fontsize=10)
        axes.set(xlabel="mean of both volumes [mL]", ylabel="predicted - true [mL]")
        axes.margins(y=0.12)
        clean(axes)
    figure.suptitle("Bland-Altman plot of volumes")
    return figure


TOO_MUCH, TOO_LITTLE, RIGHT = "#8e5ea2", "#d1495b", "#9ccc9c"
_MOST_NAMED = 40


def draw_error_volumes(
    case_ids: Sequence[str],
    right: Sequence[float],
    too_much: Sequence[float],
    too_little: Sequence[float],
    name: str,
) -> Figure:
    """mL of one class per case, the largest tumour first: hit, missed, and, below the line,
    invented."""
    hit, extra, missed = (np.asarray(v, float) for v in (right, too_much, too_little))
    order = np.argsort(-(hit + missed), kind="stable")
    places = np.arange(len(case_ids))
    figure = Figure(
        figsize=(float(np.clip(0.35 * len(case_ids) + 2, 6, 14)), 4.2), layout="constrained"
    )
    axes = figure.subplots()
    axes.bar(places, hit[order], 0.8, color=RIGHT, label="found")
    axes.bar(
        places, missed[order], 0.8, bottom=hit[order], color=TOO_LITTLE, label="missed (too little)"
    )
    axes.bar(places, -extra[order], 0.8, color=TOO_MUCH, label="invented (too much)")
    axes.axhline(0, color="#333333", lw=1)
    if len(case_ids) <= _MOST_NAMED:
        axes.set_xticks(places, [case_ids[i] for i in order], rotation=60, ha="right", fontsize=8)
    else:
        axes.set_xticks([])
        axes.set_xlabel(f"{len(case_ids)} cases, largest first")
    axes.set(ylabel="volume [mL]", title=f"{name}: what was found, missed and invented")
    axes.legend(frameon=False)
    clean(axes, "y")
    return figure


_KINDS = {"found": "#2e8b57", "missed": "#d1495b", "invented": "#8e5ea2"}


def draw_lesion_counts(counts: Mapping[str, Mapping[str, float]]) -> Figure:
    """Connected components of all cases: class -> found, missed, invented -> number."""
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(counts))
    for offset, (kind, colour) in zip((-0.27, 0.0, 0.27), _KINDS.items(), strict=True):
        numbers = [counts[name][kind] for name in counts]
        bars = axes.bar(places + offset, numbers, 0.25, color=colour, label=kind)
        axes.bar_label(bars, [f"{n:.0f}" for n in numbers], fontsize=8, padding=2)
    axes.set_xticks(places, list(counts))
    axes.set(ylabel="lesions", title="Lesions (connected components) of all cases")
    axes.margins(y=0.12)
    axes.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.08))
    clean(axes, "y")
    return figure


def draw_lesion_sizes(
    volumes: Mapping[str, Sequence[float]], dice: Mapping[str, Sequence[float]]
) -> Figure:
    """A panel per class, a dot per lesion of the truth: its volume in mm^3 against its Dice; a
    cross for one that was missed."""
    figure, panels = class_panels(len(volumes), height=3.1)
    for axes, (name, colour) in zip(panels, shades(volumes).items(), strict=True):
        x, y = np.asarray(volumes[name], float), np.asarray(dice[name], float)
        missed = y == 0
        axes.scatter(x[~missed], y[~missed], s=24, color=colour, lw=0.5, edgecolor="#333333")
        axes.scatter(x[missed], y[missed], s=30, marker="x", color="#d1495b", zorder=3)
        logarithmic(axes, x)
        if not x.size:
            nothing(axes, "no lesion")
        words = f"{name}: {int(missed.sum())} of {x.size} missed"
        axes.set_title(words, fontsize=10)
        axes.set(ylim=(-0.05, 1.03), xlabel="lesion volume [mm\u00b3]", ylabel="Dice of the lesion")
        clean(axes)
    figure.suptitle("Lesions of the truth, as BraTS 2023 counts them")
    return figure


def draw_volume_agreement(
    truth: Mapping[str, Sequence[float]], prediction: Mapping[str, Sequence[float]]
) -> Figure:
    """A panel per class, a dot per case, mL; on the line both agree."""
    figure, panels = class_panels(len(truth))
    for axes, (name, colour) in zip(panels, shades(truth).items(), strict=True):
        x, y = np.asarray(truth[name], float), np.asarray(prediction[name], float)
        high = 1.08 * max(x.max(initial=0), y.max(initial=0), 1e-3)
        axes.plot([0, high], [0, high], color="#999999", lw=1)
        axes.scatter(x, y, s=26, color=colour, alpha=0.85, lw=0.5, edgecolor="#333333", zorder=3)
        axes.set(
            xlim=(-0.03 * high, high),
            ylim=(-0.03 * high, high),
            xlabel="true volume [mL]",
            ylabel="predicted volume [mL]",
            title=name,
            aspect="equal",
        )
        clean(axes)
    figure.suptitle("Volumes")
    return figure
