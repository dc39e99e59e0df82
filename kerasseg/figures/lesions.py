"""Figures of volumes and lesions: how much was found, missed and invented.

Mappings go from a class to the values of all cases, or of all lesions.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from kerasseg.figures import style

_MOST_NAMED = 40
"""Cases up to which each has its name on the axis."""


def draw_bland_altman(
    truth: Mapping[str, Sequence[float]], prediction: Mapping[str, Sequence[float]]
) -> Figure:
    """Draw the difference of two volumes over their mean, a panel per class.

    Lines are the mean difference and, dashed, the limits of agreement: the mean plus and minus
    1.96 standard deviations (Bland and Altman 1986). Volumes are in mL.
    """
    figure, panels = style.panel_grid(len(truth), height=3.1)
    for axes, (name, colour) in zip(panels, style.class_colours(truth).items(), strict=True):
        x, y = np.asarray(truth[name], float), np.asarray(prediction[name], float)
        difference = y - x
        bias = float(difference.mean())
        axes.axhline(0, color=style.LINE, lw=1)
        axes.axhline(bias, color=style.INK, lw=1.5)
        title = f"{name}: bias {bias:+.2f} mL"
        if x.size > 2:
            spread = 1.96 * float(difference.std(ddof=1))
            for limit in (bias - spread, bias + spread):
                axes.axhline(limit, color=style.INK, lw=1, ls=(0, (4, 2)))
            title += f"\nlimits {bias - spread:+.2f} to {bias + spread:+.2f} mL"
        style.draw_dots(axes, (x + y) / 2, difference, colour)
        axes.set_title(title)
        axes.set(xlabel="mean of both volumes [mL]", ylabel="predicted - true [mL]")
        axes.margins(y=0.12)
        style.style_axes(axes)
    figure.suptitle("Bland-Altman plot of volumes")
    return figure


def draw_error_volumes(
    case_ids: Sequence[str],
    right: Sequence[float],
    too_much: Sequence[float],
    too_little: Sequence[float],
    name: str,
) -> Figure:
    """Draw the volume that was found and missed in each case and, below the line, invented.

    Args:
        case_ids: Names of the cases. The largest tumour is drawn first.
        right: Volume in truth and prediction, in mL.
        too_much: Volume in the prediction alone, in mL.
        too_little: Volume in the truth alone, in mL.
        name: Name of the class.
    """
    hit, extra, missed = (np.asarray(v, float) for v in (right, too_much, too_little))
    order = np.argsort(-(hit + missed), kind="stable")
    places = np.arange(len(case_ids))
    figure, axes = style.new_figure(float(np.clip(0.35 * len(case_ids) + 2, 6, 14)), 4.2)
    axes.bar(places, hit[order], 0.8, color=style.OUTCOME_COLOURS["right"], label="found")
    for kind, height, bottom, label in (
        ("missed", missed, hit[order], "missed (too little)"),
        ("invented", -extra, 0.0, "invented (too much)"),
    ):
        colour = style.OUTCOME_COLOURS[kind]
        axes.bar(places, height[order], 0.8, bottom=bottom, color=colour, label=label)
    axes.axhline(0, color=style.INK, lw=1)
    if len(case_ids) <= _MOST_NAMED:
        axes.set_xticks(places, [case_ids[i] for i in order], rotation=60, ha="right")
    else:
        axes.set_xticks([])
        axes.set_xlabel(f"{len(case_ids)} cases, largest first")
    axes.set(ylabel="volume [mL]", title=f"{name}: what was found, missed and invented")
    axes.legend(frameon=False)
    style.style_axes(axes, "y")
    return figure


def draw_lesion_counts(counts: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw how many lesions (connected components) of all cases were found, missed and invented."""
    figure, axes = style.new_figure(7.2, 3.8)
    places = np.arange(len(counts))
    kinds = {"found": "right", "missed": "missed", "invented": "invented"}
    for offset, (kind, outcome) in zip((-0.27, 0.0, 0.27), kinds.items(), strict=True):
        numbers = [counts[name][kind] for name in counts]
        colour = style.OUTCOME_COLOURS[outcome]
        bars = axes.bar(places + offset, numbers, 0.25, color=colour, label=kind)
        axes.bar_label(bars, [f"{n:.0f}" for n in numbers], fontsize=style.REMARK, padding=2)
    axes.set_xticks(places, list(counts))
    axes.set(ylabel="lesions", title="Lesions (connected components) of all cases")
    axes.margins(y=0.12)
    style.legend_below(axes)
    style.style_axes(axes, "y")
    return figure


def draw_lesion_sizes(
    volumes: Mapping[str, Sequence[float]], dice: Mapping[str, Sequence[float]]
) -> Figure:
    """Draw the Dice of each lesion of the truth over its volume, a panel per class.

    Volumes are in mm³. A cross is a lesion that was missed, whose Dice is 0.
    """
    figure, panels = style.panel_grid(len(volumes), height=3.1)
    for axes, (name, colour) in zip(panels, style.class_colours(volumes).items(), strict=True):
        x, y = np.asarray(volumes[name], float), np.asarray(dice[name], float)
        missed = y == 0
        style.draw_dots(axes, x[~missed], y[~missed], colour)
        axes.scatter(x[missed], y[missed], s=30, marker="x", color=style.RED, zorder=3)
        style.value_axis(axes, x)
        if not x.size:
            style.write_remark(axes, "no lesion")
        title = f"{name}: {int(missed.sum())} of {x.size} missed"
        axes.set_title(title)
        axes.set(ylim=(-0.05, 1.03), xlabel="lesion volume [mm\u00b3]", ylabel="Dice of the lesion")
        style.style_axes(axes)
    figure.suptitle("Lesions of the truth, as BraTS 2023 counts them")
    return figure


def draw_volume_agreement(
    truth: Mapping[str, Sequence[float]], prediction: Mapping[str, Sequence[float]]
) -> Figure:
    """Draw the predicted over the true volume in mL, a panel per class; on the line both agree."""
    figure, panels = style.panel_grid(len(truth))
    for axes, (name, colour) in zip(panels, style.class_colours(truth).items(), strict=True):
        x, y = np.asarray(truth[name], float), np.asarray(prediction[name], float)
        high = 1.08 * max(x.max(initial=0), y.max(initial=0), 1e-3)
        axes.plot([0, high], [0, high], color=style.LINE, lw=1)
        style.draw_dots(axes, x, y, colour)
        axes.set(
            xlim=(-0.03 * high, high),
            ylim=(-0.03 * high, high),
            xlabel="true volume [mL]",
            ylabel="predicted volume [mL]",
            title=name,
            aspect="equal",
        )
        style.style_axes(axes)
    figure.suptitle("Volumes")
    return figure
