"""`kerasseg show-batch`: the patches that training sees, without and with augmentation."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure, SubFigure

from kerasseg import anatomy
from kerasseg.config.augment import AugmentSettings, transforms_of
from kerasseg.config.experiment import Experiment
from kerasseg.figures import style
from kerasseg.pipeline.batches import TrainingBatches
from kerasseg.records.splits import open_split
from kerasseg.records.store import open_store

_MOST_MODALITIES = 4
_PANEL, _LEAST_WIDTH, _HEADINGS = 1.55, 4.8, 1.35
"""Inches: side of a panel, width of the figure, height of headings and legend together."""
_LETTERS_PER_INCH = 10


@dataclass(frozen=True)
class PatchPair:
    """A patch as it is cut and as it is augmented.

    Attributes:
        case_id: The case that it is cut from.
        image: Z-scores (*size, M) of the M modalities, size (d, h, w) or (h, w); air is 0.
        masks: The target's channels (*size, K).
    """

    case_id: str
    image: np.ndarray
    masks: np.ndarray
    varied_image: np.ndarray
    varied_masks: np.ndarray


def show_batch(
    experiment: Experiment,
    path: Path,
    *,
    examples: int = 6,
    epoch: int = 1,
    seed: int | None = None,
) -> None:
    """Draw the first training patches of an epoch into a PNG file.

    The patches are cut in the same places with and without augmentation. The scans are converted
    first if that was not done yet. Raises `UserError` if the scans cannot be converted or the file
    cannot be written.

    Args:
        epoch: The epoch, counted from 1.
        seed: Seed of the run; by default `run.seed`.
    """
    seed = experiment.run.seed if seed is None else seed
    pairs = _read_pairs(experiment, examples, epoch, seed)
    title = (
        f"{experiment.run.name}: training patches of epoch {epoch}, seed {seed}. "
        f"{_describe_augmentation(experiment.augment)}"
    )
    figure = draw_patches(pairs, experiment.data.modalities, experiment.model.target, title)
    style.save_figure(figure, path, "--output")


def draw_patches(
    pairs: Sequence[PatchPair], modalities: Sequence[str], target: str, title: str
) -> Figure:
    """Draw a row per patch: on the left as cut, on the right augmented, tumours outlined.

    Of a 3-D patch the slice with the most tumour is drawn. It is found anew in the augmented patch,
    which may be mirrored. A modality has one grey scale on both sides, so that changes of intensity
    show. `modalities` are the names of the image's channels, of which the first four are drawn.
    """
    names = [anatomy.MODALITY_TITLES.get(m, m) for m in modalities][:_MOST_MODALITIES]
    panel = max(_PANEL, _LEAST_WIDTH / 2 / len(names))
    width = 2 * len(names) * panel + 0.6
    tall = min(max(pairs[0].image.shape[-3] / pairs[0].image.shape[-2], 0.5), 2.0)
    figure = Figure(figsize=(width, len(pairs) * panel * tall + _HEADINGS), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, wspace=0.02)[0]
    cut = [_tumour_slice(pair.image, pair.masks, target, pair.case_id) for pair in pairs]
    varied = [_tumour_slice(pair.varied_image, pair.varied_masks, target) for pair in pairs]
    greys = [[style.grey_range(s.image[..., m]) for m in range(len(names))] for s in cut]
    _draw_side(left, "as cut", cut, names, greys, target)
    _draw_side(right, "augmented", varied, names, greys, target)
    lines = textwrap.fill(title, int(_LETTERS_PER_INCH * width))
    figure.suptitle(lines, fontsize=style.FIGURE_TITLE)
    style.label_legend(figure, target)
    return figure


@dataclass(frozen=True)
class _Slice:
    """An image (h, w, M), its masks (h, w, K), and the label beside them."""

    image: np.ndarray
    masks: np.ndarray
    label: str


def _tumour_slice(image: np.ndarray, masks: np.ndarray, target: str, case_id: str = "") -> _Slice:
    """Take the slice with the most tumour from a patch, or its middle one if there is none."""
    lines = [case_id]
    if masks.ndim == 4:
        channels = list(anatomy.TARGETS[target])
        tumour = [channels.index(name) for name in anatomy.tumour_channels(target)]
        areas = masks[..., tumour].any(axis=-1).sum(axis=(1, 2))
        place = int(areas.argmax()) if areas.any() else len(areas) // 2
        image, masks = image[place], masks[place]
        lines.append(f"slice {place}")
    return _Slice(image.astype(np.float32), masks, "\n".join(filter(None, lines)))


def _draw_side(
    figure: SubFigure,
    heading: str,
    slices: Sequence[_Slice],
    modalities: Sequence[str],
    greys: Sequence[Sequence[tuple[float, float]]],
    target: str,
) -> None:
    figure.suptitle(heading, fontsize=style.TITLE, fontweight="bold")
    axes = figure.subplots(len(slices), len(modalities), squeeze=False)
    for row, shown in enumerate(slices):
        axes[row, 0].set_ylabel(shown.label, fontsize=style.REMARK)
        for column, name in enumerate(modalities):
            panel = axes[row, column]
            above = name if row == 0 else ""
            style.show_slice(panel, shown.image[..., column], above, grey=greys[row][column])
            style.show_contours(panel, shown.masks, target)


def _read_pairs(experiment: Experiment, examples: int, epoch: int, seed: int) -> list[PatchPair]:
    store = open_store(experiment)
    split = open_split(store, experiment.split)
    transforms = transforms_of(experiment.augment)
    plain, varied = (
        TrainingBatches(
            store,
            split.train,
            experiment.pipeline,
            target=experiment.model.target,
            batch_size=experiment.training.batch_size,
            seed=seed,
            steps_per_epoch=experiment.training.steps_per_epoch,
            steps_multiple=experiment.training.gradient_accumulation,
            transforms=chosen,
        )
        for chosen in ((), transforms)
    )
    steps = -(-examples // plain.batch_size)
    names = [
        name
        for step in range(steps)
        for name in plain.batch_case_ids(
            epoch - 1 + step // plain.steps_per_epoch, step % plain.steps_per_epoch
        )
    ]
    patches = [
        batches.dataset(epoch - 1).unbatch().take(examples).as_numpy_iterator()
        for batches in (plain, varied)
    ]
    # With neighbouring slices as channels, only the middle slice is drawn.
    modalities = len(experiment.data.modalities)
    first = modalities * experiment.pipeline.slices.neighbours
    middle = np.s_[..., first : first + modalities]
    return [
        PatchPair(name, image[middle], masks, varied_image[middle], varied_masks)
        for name, (image, masks), (varied_image, varied_masks) in zip(names, *patches, strict=False)
    ]


def _describe_augmentation(settings: AugmentSettings) -> str:
    """Name the preset and the transforms that are in use."""
    own = ", ".join(
        name for term in settings.transforms or () for name, value in term if value is not None
    )
    parts = [
        f"augment.preset={settings.preset}" if settings.preset != "none" else "",
        f"transforms: {own}" if own else "",
        "Albumentations: " + ", ".join(name for term in settings.albumentations for name in term)
        if settings.albumentations
        else "",
    ]
    return "; ".join(filter(None, parts)) or "No augmentation: augment.preset=none"
