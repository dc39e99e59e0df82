"""Figures of one case: slices and planes with truth, prediction and errors.

Labels are canonical ids (D, H, W), masks are (D, H, W, K) with the channels of a target.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy import ndimage

from kerasseg import anatomy
from kerasseg.datasets.case import bounding_box
from kerasseg.figures import style
from kerasseg.records.schema import StoredCase
from kerasseg.targets import label_to_masks, masks_to_label

_ERROR_OPACITY = 0.85
_MARGIN = 3
"""Voxels around what is shown."""
_LEAST_DEPTH = 0.4
"""Depth over height from which planes across the slices look like a head. Pictures have less, and
so have LGG's stacks, because their files do not say how far apart the slices lie."""
_WIDEST_PLANE = 1.6
"""Largest width of a plane over its height."""
_LEGEND_WIDTH = 5.8
"""Width in inches of a figure whose legend names three classes and all kinds of errors."""


@dataclass(frozen=True)
class Plane:
    """A plane through a volume: slice `index` along `axis`, of which the rows and columns of
    `part` are shown. `aspect` is the height of a pixel over its width.
    """

    title: str
    axis: int
    index: int
    part: tuple[slice, slice]
    aspect: float

    def cut(self, volume: np.ndarray) -> np.ndarray:
        """Cut the plane (h, w, …) out of a volume (D, H, W, …), the crown of the head up."""
        plane = volume.take(self.index, axis=self.axis)[self.part]
        return plane if self.axis == 0 else plane[::-1]


def planes_at(
    place: Sequence[int],
    box: Sequence[slice],
    spacing: tuple[float, float, float],
    offset: Sequence[int] = (0, 0, 0),
) -> list[Plane]:
    """Return the axial, coronal and sagittal plane through the voxel `place`, cut to a box.

    `offset` is added to the numbers in the titles if the volume was cut out of a larger one.
    """
    planes = []
    for axis, name in enumerate(("axial", "coronal", "sagittal")):
        rows, columns = (a for a in range(3) if a != axis)
        title = f"{name} {place[axis] + offset[axis]}"
        aspect = spacing[rows] / spacing[columns]
        planes.append(Plane(title, axis, int(place[axis]), (box[rows], box[columns]), aspect))
    return planes


def planes_through(
    tumour: np.ndarray,
    shown: np.ndarray,
    spacing: tuple[float, float, float],
    offset: Sequence[int] = (0, 0, 0),
) -> list[Plane]:
    """Return the axial, coronal and sagittal plane with the most tumour.

    Without a tumour they are the middle planes. A volume of one slice has the axial plane only.

    Args:
        tumour: Mask (D, H, W).
        shown: Mask (D, H, W), such as the brain, around which the planes are cut.
        spacing: Size of a voxel along D, H and W in mm.
    """
    box = bounding_box(shown) if shown.any() else tuple(slice(0, n) for n in shown.shape)
    box = tuple(
        slice(max(part.start - _MARGIN, 0), min(part.stop + _MARGIN, n))
        for part, n in zip(box, shown.shape, strict=True)
    )
    place = []
    for axis, size in enumerate(tumour.shape):
        areas = np.count_nonzero(tumour, axis=tuple(a for a in range(3) if a != axis))
        place.append(int(areas.argmax()) if areas.any() else size // 2)
    planes = planes_at(place, box, spacing, offset)
    # A picture has no other slice that a number would tell it apart from.
    return [replace(planes[0], title="")] if tumour.shape[0] == 1 else planes


def error_kinds(truth: np.ndarray, prediction: np.ndarray) -> dict[str, np.ndarray]:
    """Return the mask of each kind of voxel in `OUTCOME_COLOURS`, from two labels of one shape."""
    both = (truth > 0) & (prediction > 0)
    return {
        "right": both & (truth == prediction),
        "another class": both & (truth != prediction),
        "missed": (truth > 0) & (prediction == 0),
        "invented": (truth == 0) & (prediction > 0),
    }


def has_depth(stored: StoredCase) -> bool:
    """Return True if a case is thick enough for three planes."""
    return _is_thick(stored.full_shape, stored.case.spacing)


def _is_thick(shape: Sequence[int], spacing: Sequence[float]) -> bool:
    return shape[0] > 1 and shape[0] * spacing[0] >= _LEAST_DEPTH * shape[1] * spacing[1]


def draw_overlay(stored: StoredCase, prediction: np.ndarray, target: str, title: str) -> Figure:
    """Draw one axial slice: every modality, then truth and prediction over FLAIR.

    The slice is the one with the most tumour, or with the most predicted tumour if there is none.
    The first modality takes the place of FLAIR where there is no FLAIR.

    Args:
        stored: A labelled case.
        prediction: Label of the stored box, as `targets.masks_to_label` gives it.
        target: The target whose channels are coloured.
        title: Title of the figure; the number of the slice is added.
    """
    case = stored.case
    assert case.label is not None
    tumour = case.label if case.label.any() else prediction
    areas = (tumour > 0).sum(axis=(1, 2))
    index = int(areas.argmax()) if areas.any() else case.label.shape[0] // 2
    channels = len(case.modalities)
    figure, axes = style.new_figure(2.5 * (channels + 2), 3.6, 1, channels + 2)
    aspect = case.spacing[1] / case.spacing[2]
    for channel, modality in enumerate(case.modalities):
        name = anatomy.MODALITY_TITLES.get(modality, modality)
        style.show_slice(axes[channel], case.image[index, ..., channel], name, aspect)
    names = list(case.modalities)
    base = names.index(anatomy.FLAIR) if anatomy.FLAIR in names else 0
    labels = {"truth": case.label, "prediction": prediction}
    for panel, (name, label) in zip(axes[-2:], labels.items(), strict=True):
        style.show_slice(panel, case.image[index, ..., base], name, aspect)
        style.show_label(panel, label[index], target, aspect)
    if stored.full_shape[0] > 1:
        title += f", axial slice {index + stored.offset[0]}"
    figure.suptitle(title, fontsize=style.FIGURE_TITLE)
    style.label_legend(figure, target)
    return figure


def draw_views(stored: StoredCase, prediction: np.ndarray, target: str, title: str) -> Figure:
    """Draw three planes through the middle of the tumour: the image alone, truth, prediction.

    The planes go through the tumour voxel that is nearest to the tumour's centre of mass. They are
    numbered as in the whole volume. Arguments as for `draw_overlay`.
    """
    case = stored.case
    assert case.label is not None
    names = list(case.modalities)
    modality = anatomy.T1CE if anatomy.T1CE in names else names[0]
    image = case.image[..., names.index(modality)]
    rows = {
        anatomy.MODALITY_TITLES.get(modality, modality): None,
        "truth": case.label,
        "prediction": prediction,
    }
    centre = _central_voxel(case.label if case.label.any() else prediction)
    planes = planes_at(centre, [slice(None)] * 3, case.spacing, stored.offset)
    figure, axes = style.new_figure(8.4, 9.2, len(rows), len(planes))
    for column, plane in enumerate(planes):
        for row, (name, label) in enumerate(rows.items()):
            panel = axes[row, column]
            style.show_slice(panel, plane.cut(image), plane.title if row == 0 else "", plane.aspect)
            if label is not None:
                style.show_label(panel, plane.cut(label), target, plane.aspect)
            if column == 0:
                panel.set_ylabel(name)
    figure.suptitle(title, fontsize=style.FIGURE_TITLE)
    style.label_legend(figure, target)
    return figure


def _central_voxel(label: np.ndarray) -> tuple[int, ...]:
    """Return the labelled voxel nearest to the centre of mass, or the middle of the volume."""
    if not label.any():
        return tuple(n // 2 for n in label.shape)
    voxels = np.argwhere(label > 0)
    centre = np.array(ndimage.center_of_mass(label > 0))
    nearest = voxels[((voxels - centre) ** 2).sum(axis=1).argmin()]
    return tuple(int(v) for v in nearest)


def draw_case_planes(
    image: np.ndarray | None,
    truth: np.ndarray,
    masks: np.ndarray,
    target: str,
    spacing: tuple[float, float, float],
    title: str,
) -> Figure:
    """Draw a column per plane: outlines of the truth, outlines of the prediction, the errors.

    Of a volume that is too thin for the others to show anything there is the axial plane only.

    Args:
        image: One modality (D, H, W) with air 0, or None for a dark ground.
        truth: Label (D, H, W).
        masks: Predicted masks (D, H, W, K) of `target`.
        target: The target whose channels are drawn.
        spacing: Size of a voxel along D, H and W in mm.
    """
    label, truth_masks = masks_to_label(masks, target), label_to_masks(truth, target)
    truth = _as_target(truth, target)
    tumour = truth > 0 if truth.any() else label > 0
    ground = np.zeros(truth.shape, np.float32) if image is None else image
    shown = _around(tumour) if image is None else ground != 0
    planes = planes_through(tumour, shown, spacing)
    if not _is_thick(truth.shape, spacing):
        planes = planes[:1]
    shapes = [plane.cut(ground).shape for plane in planes]
    # Few slices make planes of a small height. As wide as that asks for, they would crowd out the
    # axial one.
    widths = [
        min(w / plane.aspect / h, _WIDEST_PLANE)
        for plane, (h, w) in zip(planes, shapes, strict=True)
    ]
    rows = ("truth", "prediction", "errors")
    side = 2.7
    figure = Figure(
        figsize=(max(side * sum(widths) + 0.5, _LEGEND_WIDTH), side * len(rows) + 1.0),
        layout="constrained",
    )
    panels = figure.subplots(len(rows), len(planes), width_ratios=widths, squeeze=False)
    for column, plane in enumerate(planes):
        for row, name in enumerate(rows):
            axes = panels[row, column]
            heading = plane.title if row == 0 else ""
            style.show_slice(axes, plane.cut(ground), heading, plane.aspect)
            if name == "errors":
                _show_errors(axes, plane.cut(truth), plane.cut(label), plane.aspect)
            else:
                outlined = truth_masks if name == "truth" else masks
                style.show_contours(axes, plane.cut(outlined), target)
            if column == 0:
                axes.set_ylabel(name)
    style.figure_legend(figure, [*style.class_handles(target), *_error_handles(target)])
    figure.suptitle(title, fontsize=style.FIGURE_TITLE)
    return figure


def draw_case_slices(
    image: np.ndarray | None,
    truth: np.ndarray,
    masks: np.ndarray,
    target: str,
    spacing: tuple[float, float, float],
    title: str,
    columns: int = 6,
) -> Figure:
    """Draw axial slices spread evenly over the tumour: outlines of the truth above the errors.

    Arguments as for `draw_case_planes`; `columns` is the largest number of slices.
    """
    label, truth_masks = masks_to_label(masks, target), label_to_masks(truth, target)
    truth = _as_target(truth, target)
    tumour = (truth > 0) | (label > 0)
    ground = np.zeros(truth.shape, np.float32) if image is None else image
    plane = planes_through(tumour, tumour if image is None else ground != 0, spacing)[0]
    held = np.flatnonzero(tumour.any(axis=(1, 2)))
    if not held.size:
        held = np.arange(truth.shape[0])
    number = min(columns, held.size)
    places = held[np.round(np.linspace(0, held.size - 1, number + 2)[1:-1]).astype(int)]
    places = np.unique(places)
    height, width = plane.cut(ground).shape
    side = 2.1
    figure = Figure(
        figsize=(max(side * len(places), 6.0), 2 * side * height * plane.aspect / width + 1.1),
        layout="constrained",
    )
    panels = figure.subplots(2, len(places), squeeze=False)
    grey = style.grey_range(ground)
    for column, place in enumerate(places):
        part = (int(place), *plane.part)
        for row in range(2):
            heading = f"slice {place}" if row == 0 else ""
            style.show_slice(panels[row, column], ground[part], heading, plane.aspect, grey)
        style.show_contours(panels[0, column], truth_masks[part], target)
        _show_errors(panels[1, column], truth[part], label[part], plane.aspect)
    panels[0, 0].set_ylabel("truth")
    panels[1, 0].set_ylabel("errors")
    style.figure_legend(figure, _error_handles(target))
    figure.suptitle(title, fontsize=style.FIGURE_TITLE)
    return figure


def _as_target(truth: np.ndarray, target: str) -> np.ndarray:
    """Return a label that tells apart no more classes than the target does."""
    return (truth > 0).astype(np.uint8) if target == "binary" else truth


def _around(tumour: np.ndarray) -> np.ndarray:
    """Return a mask of the tumour's box, half as wide again on every side.

    It takes the place of the brain where there is no image.
    """
    if not tumour.any():
        return np.ones(tumour.shape, bool)
    shown = np.zeros(tumour.shape, bool)
    box = bounding_box(tumour)
    margins = [(part.stop - part.start) // 2 + 5 for part in box]
    shown[
        tuple(slice(max(p.start - m, 0), p.stop + m) for p, m in zip(box, margins, strict=True))
    ] = True
    return shown


def _show_errors(
    axes: Axes, truth: np.ndarray, prediction: np.ndarray, aspect: float = 1.0
) -> None:
    """Lay the errors of labels (h, w) over a slice."""
    rgba = np.zeros((*truth.shape, 4))
    for name, mask in error_kinds(truth, prediction).items():
        rgba[mask] = (*colors.to_rgb(style.OUTCOME_COLOURS[name]), _ERROR_OPACITY)
    axes.imshow(rgba, aspect=aspect, interpolation="nearest")


def _error_handles(target: str) -> list[Patch]:
    """Return a legend's entries for the errors; a single class has no other to be taken for."""
    names = [n for n in style.OUTCOME_COLOURS if not (target == "binary" and n == "another class")]
    return [Patch(color=style.OUTCOME_COLOURS[name], label=name) for name in names]


@dataclass(frozen=True)
class ComparedCase:
    """A case as several runs see it.

    Attributes:
        image: One modality (D, H, W) with air 0, or None for a dark ground.
        truth: Label (D, H, W).
        spacing: Size of a voxel along D, H and W in mm.
        masks: Run -> its masks (D, H, W, K).
        remarks: Run -> a few words above its slice, such as its Dice.
    """

    case_id: str
    image: np.ndarray | None
    truth: np.ndarray
    spacing: tuple[float, float, float]
    masks: Mapping[str, np.ndarray]
    remarks: Mapping[str, str]


def draw_same_slices(cases: Sequence[ComparedCase], target: str) -> Figure:
    """Draw a row per case: outlines of the truth and of each run in the slice with most tumour."""
    runs = list(cases[0].masks)
    side = 2.6
    figure = Figure(
        figsize=(side * (len(runs) + 1) + 0.4, side * 1.12 * len(cases) + 0.9), layout="constrained"
    )
    panels = figure.subplots(len(cases), len(runs) + 1, squeeze=False)
    for row, case in enumerate(cases):
        any_run = np.logical_or.reduce([m.any(axis=-1) for m in case.masks.values()])
        tumour = case.truth > 0 if case.truth.any() else any_run
        ground = np.zeros(case.truth.shape, np.float32) if case.image is None else case.image
        plane = planes_through(tumour, ground != 0, case.spacing)[0]
        columns = {"truth": label_to_masks(case.truth, target), **case.masks}
        for axes, (name, masks) in zip(panels[row], columns.items(), strict=True):
            title = name if row == 0 else ""
            if name in case.remarks:
                title = f"{title}\n{case.remarks[name]}".strip()
            style.show_slice(axes, plane.cut(ground), title, plane.aspect)
            style.show_contours(axes, plane.cut(masks), target)
        beside = f"{case.case_id}\n{plane.title}".strip()
        panels[row, 0].set_ylabel(beside, fontsize=style.REMARK)
    style.figure_legend(figure, style.class_handles(target))
    return figure


def draw_slice_profile(
    truth: np.ndarray,
    prediction: np.ndarray,
    spacing: tuple[float, float, float],
    title: str,
    colour: str,
) -> Figure:
    """Draw the area of masks (D, H, W) in each axial slice in cm², and the Dice of the slice."""
    square = spacing[1] * spacing[2] / 100
    areas = [np.count_nonzero(mask, axis=(1, 2)) * square for mask in (truth, prediction)]
    hits = np.count_nonzero(truth & prediction, axis=(1, 2)) * square
    slices = np.arange(truth.shape[0])
    figure, (axes, below) = style.new_figure(7.2, 3.8, 2, 1, height_ratios=(2, 1), sharex=True)
    axes.fill_between(slices, areas[0], color=colour, alpha=0.35, lw=0, label="truth")
    axes.plot(slices, areas[1], color=style.INK, lw=1.8, label="prediction")
    axes.set(ylabel="area [cm\u00b2]", title=title)
    axes.legend(frameon=False)
    both = areas[0] + areas[1]
    held = both > 0
    below.bar(slices[held], 2 * hits[held] / both[held], 0.85, color=colour)
    below.set(xlabel="axial slice, from the feet up", ylabel="Dice of the slice", ylim=(0, 1))
    for panel in (axes, below):
        style.style_axes(panel, "y")
    return figure
