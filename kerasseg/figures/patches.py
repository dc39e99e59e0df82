"""`show_batch.png`: training patches without and with augmentation."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from kerasseg import anatomy
from kerasseg.figures.style import grey_range, legend, show_contours, show_slice

_MOST_MODALITIES = 4
_PANEL, _LEAST_WIDTH, _HEADINGS, _LEGEND = 1.55, 4.8, 1.0, 0.35
"""Inches."""
_LETTERS = 11
"""Of the title, per inch."""


@dataclass(frozen=True)
class PatchPair:
    """A patch as cut and as augmented.

    image: (*size, M) z-scores, size (d, h, w) or (h, w); air 0
    masks: (*size, K) of the target's channels
    """

    case_id: str
    image: np.ndarray
    masks: np.ndarray
    varied_image: np.ndarray
    varied_masks: np.ndarray


def draw_patches(
    pairs: Sequence[PatchPair], modalities: Sequence[str], target: str, title: str
) -> Figure:
    """A row per patch: to the left as cut, to the right augmented, up to four modalities of each,
    tumours outlined.

    Of a 3-D patch the slice with most tumour, in the augmented one counted anew: a mirrored one
    has it elsewhere. A modality has one grey scale in both, so that changes of intensity show.
    """
    shown = [anatomy.MODALITY_TITLES.get(m, m) for m in modalities][:_MOST_MODALITIES]
    panel = max(_PANEL, _LEAST_WIDTH / 2 / len(shown))
    width = 2 * len(shown) * panel + 0.6
    tall = min(max(pairs[0].image.shape[-3] / pairs[0].image.shape[-2], 0.5), 2.0)
    height = len(pairs) * panel * tall + _HEADINGS
    figure = Figure(
        figsize=(width, height),
        layout=ConstrainedLayoutEngine(rect=(0, _LEGEND / height, 1, 1 - _LEGEND / height)),
    )
    left, right = figure.subfigures(1, 2, squeeze=False, wspace=0.02)[0]
    cut = [_plane(pair.image, pair.masks, target, pair.case_id) for pair in pairs]
    varied = [_plane(pair.varied_image, pair.varied_masks, target) for pair in pairs]
    greys = [[grey_range(plane.image[..., m]) for m in range(len(shown))] for plane in cut]
    _draw_group(left, "as cut", cut, shown, greys, target)
    _draw_group(right, "augmented", varied, shown, greys, target)
    figure.suptitle(textwrap.fill(title, int(_LETTERS * width)), fontsize=11)
    legend(figure, target)
    return figure


@dataclass(frozen=True)
class _Plane:
    """image (h, w, M) float32, masks (h, w, K), and what stands beside them."""

    image: np.ndarray
    masks: np.ndarray
    words: str


def _draw_group(
    figure: SubFigure,
    heading: str,
    planes: Sequence[_Plane],
    modalities: Sequence[str],
    greys: Sequence[Sequence[tuple[float, float]]],
    target: str,
) -> None:
    figure.suptitle(heading, fontsize=11, fontweight="bold")
    axes = figure.subplots(len(planes), len(modalities), squeeze=False)
    for row, plane in enumerate(planes):
        axes[row, 0].set_ylabel(plane.words, fontsize=8)
        for column, name in enumerate(modalities):
            panel = axes[row, column]
            above = name if row == 0 else ""
            show_slice(panel, plane.image[..., column], above, grey=greys[row][column])
            show_contours(panel, plane.masks, target)


def _plane(image: np.ndarray, masks: np.ndarray, target: str, case_id: str = "") -> _Plane:
    """A slice as it is; of a volume the one with most tumour, the middle one without any."""
    words = [case_id]
    if masks.ndim == 4:
        channels = list(anatomy.TARGETS[target])
        tumour = [channels.index(name) for name in anatomy.tumour_channels(target)]
        areas = masks[..., tumour].any(axis=-1).sum(axis=(1, 2))
        place = int(areas.argmax()) if areas.any() else len(areas) // 2
        image, masks = image[place], masks[place]
        words.append(f"slice {place}")
    return _Plane(image.astype(np.float32), masks, "\n".join(filter(None, words)))
