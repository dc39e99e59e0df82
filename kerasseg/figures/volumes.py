"""`<case>_views.png`: three planes through the tumour's centre.

Where a prediction is wrong, in colours.

The three planes through a tumour, cut out of a volume.

One case in three planes: truth, prediction, errors.

Axial slices through one tumour.

`<case>_overlay.png`: truth against prediction.

The same slices of several runs next to each other.

Area of truth and prediction from slice to slice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from scipy import ndimage

from kerasseg import anatomy
from kerasseg.figures.style import (
    clean,
    grey_range,
    legend,
    save,
    show_contours,
    show_slice,
    show_tumour,
)
from kerasseg.metrics.surface import bounding_box
from kerasseg.records.schema import StoredCase
from kerasseg.targets import label_to_masks, masks_to_label

ERRORS = {
    "right": "#9ccc9c",
    "another class": "#ff9f1c",
    "missed": "#d1495b",
    "invented": "#8e5ea2",
}
"""Kind of voxel -> colour."""


def error_kinds(truth: np.ndarray, prediction: np.ndarray) -> dict[str, np.ndarray]:
    """Masks of `ERRORS` of two labels of one shape: tumour of the right class, of another one,
    tumour taken for healthy, healthy taken for tumour."""
    both = (truth > 0) & (prediction > 0)
    return {
        "right": both & (truth == prediction),
        "another class": both & (truth != prediction),
        "missed": (truth > 0) & (prediction == 0),
        "invented": (truth == 0) & (prediction > 0),
    }


def show_errors(axes: Axes, truth: np.ndarray, prediction: np.ndarray, aspect: float = 1.0) -> None:
    """Lay the errors of labels (h, w) over a slice."""
    rgba = np.zeros((*truth.shape, 4))
    for name, mask in error_kinds(truth, prediction).items():
        rgba[mask] = (*colors.to_rgb(ERRORS[name]), 0.85)
    axes.imshow(rgba, aspect=aspect, interpolation="nearest")


def error_handles(target: str) -> list[Patch]:
    """For a legend; of one class none is taken for another."""
    names = [name for name in ERRORS if not (target == "binary" and name == "another class")]
    return [Patch(color=ERRORS[name], label=name) for name in names]


_MARGIN = 3
"""Voxels around what is shown."""


@dataclass(frozen=True)
class Plane:
    """A plane of the volume: its name with the slice's number, the axis that it cuts, the slice,
    the part of it that is shown, and the height of a pixel over its width."""

    title: str
    axis: int
    index: int
    part: tuple[slice, slice]
    aspect: float

    def cut(self, volume: np.ndarray) -> np.ndarray:
        """(D, H, W, …) -> (h, w, …), the crown of the head up."""
        plane = volume.take(self.index, axis=self.axis)[self.part]
        return plane if self.axis == 0 else plane[::-1]


def planes_through(
    tumour: np.ndarray, shown: np.ndarray, spacing: tuple[float, float, float]
) -> list[Plane]:
    """Axial, coronal and sagittal, each the slice with most of the mask `tumour` (D, H, W), the
    middle one without any; of a picture the axial one alone. Around the mask `shown`, such as the
    brain."""
    box = bounding_box(shown) if shown.any() else tuple(slice(0, n) for n in shown.shape)
    box = tuple(
        slice(max(part.start - _MARGIN, 0), min(part.stop + _MARGIN, n))
        for part, n in zip(box, shown.shape, strict=True)
    )
    planes = []
    for axis, name in enumerate(("axial", "coronal", "sagittal")):
        rows, columns = (a for a in range(3) if a != axis)
        areas = np.count_nonzero(tumour, axis=(rows, columns))
        index = int(areas.argmax()) if areas.any() else tumour.shape[axis] // 2
        part = (box[rows], box[columns])
        planes.append(Plane(f"{name} {index}", axis, index, part, spacing[rows] / spacing[columns]))
        if tumour.shape[0] == 1:
            break
    return planes


_ROWS = ("truth", "prediction", "errors")
_WIDEST = 1.6
"""Widths of a panel in its heights."""


def draw_case_planes(
    image: np.ndarray | None,
    truth: np.ndarray,
    masks: np.ndarray,
    target: str,
    spacing: tuple[float, float, float],
    title: str,
) -> Figure:
    """Rows: outlines of the truth, outlines of the prediction, error map; a column per plane.

    image: one modality (D, H, W), air 0; None: a dark ground
    truth: labels (D, H, W); masks: (D, H, W, K) of `target`; spacing: mm
    """
    tumour = truth > 0 if truth.any() else masks_to_label(masks, target) > 0
    ground = np.full(truth.shape, 0.0, np.float32) if image is None else image
    shown = (ground != 0) if image is not None else _around(tumour)
    planes = planes_through(tumour, shown, spacing)
    label, wanted = masks_to_label(masks, target), label_to_masks(truth, target)
    if target == "binary":
        truth = (truth > 0).astype(np.uint8)
    shapes = [plane.cut(ground).shape for plane in planes]
    # Few slices make planes of a small height: as wide as that asks for, they would crowd out the
    # axial one.
    widths = [
        min(w / plane.aspect / h, _WIDEST) for plane, (h, w) in zip(planes, shapes, strict=True)
    ]
    side = 2.7
    figure = Figure(
        figsize=(max(side * sum(widths) + 0.5, 5.2), side * len(_ROWS) + 1.0),
        layout=ConstrainedLayoutEngine(rect=(0, 0.055, 1, 0.945)),
    )
    panels = figure.subplots(len(_ROWS), len(planes), width_ratios=widths, squeeze=False)
    for column, plane in enumerate(planes):
        for row, name in enumerate(_ROWS):
            axes = panels[row, column]
            show_slice(axes, plane.cut(ground), plane.title if row == 0 else "", plane.aspect)
            if name == "errors":
                show_errors(axes, plane.cut(truth), plane.cut(label), plane.aspect)
            else:
                drawn = wanted if name == "truth" else masks
                show_contours(axes, plane.cut(drawn), target)
            if column == 0:
                axes.set_ylabel(name)
    handles = [
        Patch(color=anatomy.COLOURS[name], label=name) for name in anatomy.tumour_channels(target)
    ]
    errors = error_handles(target)
    figure.legend(
        handles=[*handles, *errors],
        loc="lower center",
        ncol=len(handles) + len(errors),
        frameon=False,
        fontsize=8,
        columnspacing=1.0,
        handlelength=1.2,
    )
    figure.suptitle(title, fontsize=11)
    return figure


def _around(tumour: np.ndarray) -> np.ndarray:
    """The tumour's box, half as wide again on every side, as a mask: the ground has no brain."""
    if not tumour.any():
        return np.ones(tumour.shape, bool)
    places = np.argwhere(tumour)
    low, high = places.min(axis=0), places.max(axis=0) + 1
    margin = (high - low) // 2 + 5
    shown = np.zeros(tumour.shape, bool)
    first, last = np.maximum(low - margin, 0), high + margin
    shown[tuple(slice(a, b) for a, b in zip(first, last, strict=True))] = True
    return shown


def draw_case_slices(
    image: np.ndarray | None,
    truth: np.ndarray,
    masks: np.ndarray,
    target: str,
    spacing: tuple[float, float, float],
    title: str,
    columns: int = 6,
) -> Figure:
    """`columns` axial slices evenly through truth and prediction: above the outlines of the truth,
    below the errors. Arguments as of `draw_case_planes`."""
    label = masks_to_label(masks, target)
    wanted = label_to_masks(truth, target)
    if target == "binary":
        truth = (truth > 0).astype(np.uint8)
    tumour = (truth > 0) | (label > 0)
    ground = np.zeros(truth.shape, np.float32) if image is None else image
    shown = (ground != 0) if image is not None else tumour
    plane = planes_through(tumour, shown, spacing)[0]
    held = np.flatnonzero(tumour.any(axis=(1, 2)))
    if not held.size:
        held = np.arange(truth.shape[0])
    number = min(columns, held.size)
    places = held[np.round(np.linspace(0, held.size - 1, number + 2)[1:-1]).astype(int)]
    places = np.unique(places)
    height, width = plane.cut(ground).shape
    side = 2.1
    figure = Figure(
        figsize=(
            max(side * len(places), 6.0),
            2 * side * height * plane.aspect / width + 1.1,
        ),
        layout=ConstrainedLayoutEngine(rect=(0, 0.07, 1, 0.93)),
    )
    panels = figure.subplots(2, len(places), squeeze=False)
    grey = grey_range(ground)
    for column, place in enumerate(places):
        part = (int(place), *plane.part)
        for row in range(2):
            name = f"slice {place}" if row == 0 else ""
            show_slice(panels[row, column], ground[part], name, plane.aspect, grey)
        show_contours(panels[0, column], wanted[part], target)
        show_errors(panels[1, column], truth[part], label[part], plane.aspect)
    panels[0, 0].set_ylabel("truth")
    panels[1, 0].set_ylabel("errors")
    figure.legend(
        handles=error_handles(target), loc="lower center", ncol=4, frameon=False, fontsize=9
    )
    figure.suptitle(title, fontsize=11)
    return figure


def draw_overlay(
    stored: StoredCase, prediction: np.ndarray, target: str, title: str, path: Path
) -> None:
    """The axial slice with most tumour: every modality, then truth and prediction over FLAIR,
    or over the first modality where there is no FLAIR. Without tumour, that with most predicted.

    `prediction` (D, H, W) holds labels of the stored box, as `targets.masks_to_label` gives them.
    """
    case = stored.case
    assert case.label is not None
    tumour = case.label if case.label.any() else prediction
    areas = (tumour > 0).sum(axis=(1, 2))
    index = int(areas.argmax()) if areas.any() else case.label.shape[0] // 2
    channels = len(case.modalities)
    figure = Figure(
        figsize=(2.5 * (channels + 2), 3.6), layout=ConstrainedLayoutEngine(rect=(0, 0.08, 1, 0.92))
    )
    axes = figure.subplots(1, channels + 2)
    aspect = case.spacing[1] / case.spacing[2]
    for channel, modality in enumerate(case.modalities):
        shown = anatomy.MODALITY_TITLES.get(modality, modality)
        show_slice(axes[channel], case.image[index, ..., channel], shown, aspect)
    names = list(case.modalities)
    base = names.index(anatomy.FLAIR) if anatomy.FLAIR in names else 0
    for panel, label, name in (
        (axes[-2], case.label, "truth"),
        (axes[-1], prediction, "prediction"),
    ):
        show_slice(panel, case.image[index, ..., base], name, aspect)
        show_tumour(panel, label[index], target, aspect)
    if stored.full_shape[0] > 1:
        title += f", axial slice {index + stored.offset[0]}"
    figure.suptitle(title, fontsize=11)
    legend(figure, target)
    save(figure, path)


@dataclass(frozen=True)
class ComparedCase:
    """A case as several runs see it: image (D, H, W) or None, truth (D, H, W), spacing in mm, and
    of each run its masks (D, H, W, K) and a few words, such as its Dice."""

    case_id: str
    image: np.ndarray | None
    truth: np.ndarray
    spacing: tuple[float, float, float]
    masks: Mapping[str, np.ndarray]
    words: Mapping[str, str]


def draw_same_slices(cases: Sequence[ComparedCase], target: str) -> Figure:
    """A row per case: the axial slice with most tumour, outlines of the truth and of each run."""
    runs = list(cases[0].masks)
    side = 2.6
    height = side * 1.12 * len(cases) + 0.9
    below = 0.45 / height
    figure = Figure(
        figsize=(side * (len(runs) + 1) + 0.4, height),
        layout=ConstrainedLayoutEngine(rect=(0, below, 1, 1 - below)),
    )
    panels = figure.subplots(len(cases), len(runs) + 1, squeeze=False)
    for row, case in enumerate(cases):
        any_run = np.logical_or.reduce([m.any(axis=-1) for m in case.masks.values()])
        tumour = case.truth > 0 if case.truth.any() else any_run
        ground = np.zeros(case.truth.shape, np.float32) if case.image is None else case.image
        plane = planes_through(tumour, ground != 0, case.spacing)[0]
        drawn = {"truth": label_to_masks(case.truth, target), **case.masks}
        for column, (name, masks) in enumerate(drawn.items()):
            axes = panels[row, column]
            words = name if row == 0 else ""
            if name in case.words:
                words = f"{words}\n{case.words[name]}".strip()
            show_slice(axes, plane.cut(ground), words, plane.aspect)
            show_contours(axes, plane.cut(masks), target)
        panels[row, 0].set_ylabel(f"{case.case_id}\n{plane.title}", fontsize=8)
    handles = [
        Patch(color=anatomy.COLOURS[name], label=name) for name in anatomy.tumour_channels(target)
    ]
    figure.legend(handles=handles, loc="lower center", ncol=len(handles), frameon=False)
    return figure


def draw_slice_profile(
    truth: np.ndarray,
    prediction: np.ndarray,
    spacing: tuple[float, float, float],
    title: str,
    colour: str,
) -> Figure:
    """Of two boolean masks (D, H, W): cm^2 of each axial slice, and its Dice where either has
    something."""
    square = spacing[1] * spacing[2] / 100
    areas = [np.count_nonzero(mask, axis=(1, 2)) * square for mask in (truth, prediction)]
    hits = np.count_nonzero(truth & prediction, axis=(1, 2)) * square
    slices = np.arange(truth.shape[0])
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes, below = figure.subplots(2, 1, height_ratios=(2, 1), sharex=True)
    axes.fill_between(slices, areas[0], color=colour, alpha=0.35, lw=0, label="truth")
    axes.plot(slices, areas[1], color="#333333", lw=1.8, label="prediction")
    axes.set(ylabel="area [cm\u00b2]", title=title)
    axes.legend(frameon=False)
    both = areas[0] + areas[1]
    held = both > 0
    below.bar(slices[held], 2 * hits[held] / both[held], 0.85, color=colour)
    below.set(xlabel="axial slice, from the feet up", ylabel="Dice of the slice", ylim=(0, 1))
    for panel in (axes, below):
        clean(panel, "y")
    return figure


_PLANES = (("axial", 0, False), ("coronal", 1, True), ("sagittal", 2, True))
"""Name, axis it cuts, and whether rows must be turned so that the crown of the head is up."""


_LEAST_DEPTH = 0.25
"""Of the height, from which planes across the slices show something. Pictures have less, and
mostly LGG's stacks, too: their files do not say how far apart the slices lie."""


def has_depth(stored: StoredCase) -> bool:
    """Whether a case is thick enough for three planes."""
    depth, height = (
        n * mm for n, mm in zip(stored.full_shape[:2], stored.case.spacing[:2], strict=True)
    )
    return stored.full_shape[0] > 1 and depth >= _LEAST_DEPTH * height


def draw_views(
    stored: StoredCase, prediction: np.ndarray, target: str, title: str, path: Path
) -> None:
    """Axial, coronal and sagittal planes through the tumour voxel nearest to the tumour's centre.

    Rows: image alone, truth, prediction. `prediction` (D, H, W) holds labels of the stored box, as
    `targets.masks_to_label` gives them; the planes are numbered as in the whole volume.
    """
    case = stored.case
    assert case.label is not None
    names = list(case.modalities)
    modality = anatomy.T1CE if anatomy.T1CE in names else names[0]
    image = case.image[..., names.index(modality)]
    centre = _centre(case.label if case.label.any() else prediction)
    rows = (
        (anatomy.MODALITY_TITLES.get(modality, modality), None),
        ("truth", case.label),
        ("prediction", prediction),
    )
    figure = Figure(figsize=(8.4, 9.2), layout=ConstrainedLayoutEngine(rect=(0, 0.04, 1, 0.96)))
    axes = figure.subplots(len(rows), len(_PLANES))
    for column, (plane, axis, upwards) in enumerate(_PLANES):
        heights = [s for a, s in enumerate(case.spacing) if a != axis]
        aspect = heights[0] / heights[1]
        for row, (name, label) in enumerate(rows):
            panel = axes[row, column]
            heading = f"{plane} {centre[axis] + stored.offset[axis]}" if row == 0 else ""
            show_slice(panel, _plane(image, axis, centre, upwards), heading, aspect)
            if label is not None:
                show_tumour(panel, _plane(label, axis, centre, upwards), target, aspect)
            if column == 0:
                panel.set_ylabel(name)
    figure.suptitle(title, fontsize=11)
    legend(figure, target)
    save(figure, path)


def _centre(label: np.ndarray) -> tuple[int, ...]:
    """The labelled voxel nearest to the centre of mass; the middle where nothing is labelled."""
    if not label.any():
        return tuple(n // 2 for n in label.shape)
    mass = np.array(ndimage.center_of_mass(label > 0))
    voxels = np.argwhere(label > 0)
    nearest = voxels[((voxels - mass) ** 2).sum(axis=1).argmin()]
    return tuple(int(v) for v in nearest)


def _plane(volume: np.ndarray, axis: int, centre: tuple[int, ...], upwards: bool) -> np.ndarray:
    plane = volume.take(centre[axis], axis=axis)
    return plane[::-1] if upwards else plane
