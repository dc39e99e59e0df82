"""Reading a case: load it, check it, bring it to the grid that the experiment asks for."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from kerasseg import anatomy
from kerasseg.config.data import DataSettings
from kerasseg.datasets.case import Case, CaseSource, bounding_box
from kerasseg.datasets.resample import resample_case, resize_case
from kerasseg.errors import UserError

_AXES = ("depth", "height", "width")
Severity = Literal["error", "warning"]
_OUTSIDE_IS_WRONG = 0.5
"""Share of the tumour outside the brain above which image and label cannot belong together."""
_OUTSIDE_IS_TURNED = 0.2
"""The same where the label would fit after being turned: then this share is enough."""
_FITS = 0.2
"""A turned label fits if at most this share of what lay outside still does."""
_ENOUGH_VOXELS = 20_000
"""So many voxels of a label tell well enough whether it fits."""
_HARDLY_TUMOUR, _NO_TUMOUR = 0.35, 2 / 3
"""Share of the scan above which no tumour is labelled but the brain, or everything around one. The
largest measured is 0.09 in BraTS2021_00006, 0.04 in 53 patients of LGG and 0.10 in 200 pictures; an
ellipsoid fills 0.52 of a scan that was cut to its box. Above the first of the two it may be the
white matter, or a hemisphere."""
_AROUND = 8
"""Voxels around a tumour, in its slices, with which it is compared."""
_UNSEEN = 0.8
"""Contrast of a tumour, in the modality that shows it best, below which its segmentation is likely
of another scan. Measured: at least 0.98 in 53 patients of LGG and 3.2 in BraTS2021_00006, and at
most 0.71 with 180 segmentations of other patients. Single slices do not tell."""
VOXEL_MM = (0.01, 100.0)
"""Shortest and longest side of a voxel that a scan of a head can have."""
LONGEST_MM, SHORTEST_MM = 0.2, 8.0
"""Its longest side is longer than the one, its shortest side shorter than the other; else the
header is in cm, or in tenths of a mm."""
_COPY = 0.999
"""Correlation from which on two channels are one sequence, perhaps scaled or rounded anew. Measured
on 53 patients of LGG: 1.00000 for the four who have a copy, at most 0.9743 for all others."""
_SAMPLED = 100_000
"""Voxels that are enough to tell it."""
_LEAST_VOXELS, _MOST_VOXELS = 4, 4096
"""No side of a head has fewer or more voxels, unless a file has as few slices."""
_LIKE_TRAINING = 1.25
"""Factor by which a scan's voxels may be longer or shorter than any in the training: so far the
presets nnunet and classic_2d shrink and enlarge patches (0.7 to 1.4, and 0.78 to 1.28). A network
trained on BraTS2021_00006 with classic_2d lost 0.04 of its Dice of ET there when pixels were 1.25
times as long, 0.11 at 1.6 and 0.21 at 2."""
_LEAST_SPREAD = 0.2
"""Logarithms of intensities differ so much between scanners, however alike a training's scans."""
SPEAKS_AGAINST = 8.0
"""Half of the difference of squared deviations from which on another order of channels is likely:
it fits e^8 times as well."""
_MOST_LINES = 8
"""Notes that are printed after a command."""
_MOST_PERMUTED = 6
_COLOURS = ("red", "green", "blue")
NO_NAMES = "nothing says which channel is which"
"""Begin of a note on a case whose channels were taken in the order of `data.modalities`."""


@dataclass(frozen=True)
class Finding:
    """Something found in a case. `check` is its short name, the same for every case.

    An error keeps the case out of training; a warning is for a person to look at.
    """

    severity: Severity
    check: str
    message: str


def findings_of(case: Case) -> Iterator[Finding]:
    """Yield everything wrong or odd that can be seen in one case alone."""
    inside = case.image if case.box is None else case.image[case.box]
    lows, highs = _ranges(inside)
    for channel, modality in enumerate(case.modalities):
        values = inside[..., channel]
        yield from _channel(case, values, modality, lows[channel], highs[channel])
    if np.isfinite(lows).all() and np.isfinite(highs).all():
        yield from _copies(case, inside)
    impossible = voxel_error(case.spacing)
    if impossible:
        yield Finding("error", "spacing", impossible)
    for note in case.notes:
        yield Finding("warning", "note", note)
    if case.label is None:
        yield Finding("warning", "no segmentation", "has no segmentation: it cannot train")
        return
    if case.label.shape != case.image.shape[:3]:
        yield Finding(
            "error",
            "shape",
            f"the segmentation has shape {case.label.shape} (depth, height, width) but the image "
            f"has {case.image.shape[:3]}: they must be of the same scan",
        )
        return
    yield from _label(case, case.label)


def check_case(case: Case) -> Case:
    """Return `case` if a store may hold it. Raises `UserError` with its first error otherwise.

    What is odd about its image is in the notes of the case that is returned.
    """
    notes = []
    for finding in findings_of(case):
        if finding.severity == "error":
            raise UserError(f"{case.case_id}: {finding.message}.")
        if finding.check in ("note", "copied modality", "unseen"):
            notes.append(finding.message)
    return dataclasses.replace(case, notes=notes)


def lone_class(voxels: Iterable[Mapping[str, int]]) -> str:
    """Say that all tumour of a data set is of one class; else nothing.

    `voxels` is class -> labelled voxels, for each case.
    """
    found = {name for counts in voxels for name, count in counts.items() if count}
    if len(found) != 1 or found <= {"tumour"}:
        return ""
    return (
        f"All tumour of all cases is {found.pop()}: if the segmentations say only where tumour is, "
        "set data.classes=tumour model.target=binary and, for files of 0 and 1, data.label_map="
        "{0: 0, 1: 1}."
    )


def check_enhancing_ids(examples: Mapping[int | None, str]) -> None:
    """Raise `UserError` if enhancing tumour is 3 in one case of a data set and 4 in another.

    Only one of them can be: the other id is something else, such as a resection cavity. `examples`
    is `Case.enhancing_id` -> the name of a case that has it.
    """
    if {3, 4} <= examples.keys():
        raise UserError(
            f"label 3 occurs in {examples[3]} and label 4 in {examples[4]}. Up to BraTS 2021 "
            "enhancing tumour is 4, from 2023 on it is 3, and from 2024 on 4 is a resection "
            "cavity: say what each id is in data.label_map."
        )


def _ranges(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest and largest value of each channel of (D, H, W, C); 0 without voxels."""
    depth, height, width, channels = image.shape
    if not image.size:
        return np.zeros(channels), np.zeros(channels)
    # Over the slow axes first, so that the inner loop is long and contiguous.
    rows = image.reshape(depth, height, width * channels)
    low, high = rows.min(axis=(0, 1)), rows.max(axis=(0, 1))
    return low.reshape(width, channels).min(axis=0), high.reshape(width, channels).max(axis=0)


def _channel(
    case: Case, values: np.ndarray, modality: str, low: float, high: float
) -> Iterator[Finding]:
    if not (np.isfinite(low) and np.isfinite(high)):  # min and max pass NaN on
        bad = np.argwhere(~np.isfinite(values))
        corner = [s.start for s in case.box] if case.box else [0, 0, 0]
        place = tuple(int(v + c) for v, c in zip(bad[0], corner, strict=True))
        yield Finding(
            "error",
            "finite",
            f"{modality} has {len(bad)} NaN or infinite voxel(s), the first at (depth, height, "
            f"width) = {place}: repair or remove this case",
        )
        return
    if low == high == 0:
        yield Finding(
            "error",
            "constant",
            f"{modality} is zero in every voxel: the scan is empty; restore the file or remove "
            "this case",
        )
    elif 0 in (low, high) or (low == high and values.size < np.prod(case.image.shape[:3])):
        value = low or high
        if ((values == 0) | (values == value)).all():
            yield Finding(
                "error",
                "constant",
                f"{modality} is {value:g} wherever it is not 0: the file holds a mask and no scan; "
                "restore it or remove this case",
            )
    elif low == high:
        yield Finding(
            "error",
            "constant",
            f"{modality} is {low:g} in every voxel: there is no scan in the file; restore it or "
            "remove this case",
        )


def _copies(case: Case, inside: np.ndarray) -> Iterator[Finding]:
    """Yield a finding for each channel (D, H, W, C) that is another one once more.

    Grey pictures that are read as colours have three equal channels; nothing is wrong with them.
    """
    step = max(round((inside.size / inside.shape[-1] / _SAMPLED) ** (1 / 3)), 1)
    voxels = inside[::step, ::step, ::step].reshape(-1, inside.shape[-1]).astype(np.float64)
    copied: set[str] = set()
    # FLAIR first, as it is what stands in for others.
    order = sorted(range(len(case.modalities)), key=lambda p: case.modalities[p] != anatomy.FLAIR)
    for places in itertools.combinations(order, 2):
        original, copy = (case.modalities[place] for place in places)
        if copy in copied:
            continue
        pair = voxels[:, places]
        pair = pair[pair.any(axis=1)]
        deviations = pair.std(axis=0) if len(pair) else np.zeros(2)
        if {copy, original} <= set(_COLOURS) or not deviations.all():
            continue
        shared = ((pair - pair.mean(axis=0)) / deviations).prod(axis=1).mean()
        if abs(shared) >= _COPY:
            copied.add(copy)
            message = (
                f"{copy} is a copy of {original}: it was not scanned, or its file was overwritten. "
                f"A network sees no {copy} in this case: restore the file, or leave the case out"
            )
            yield Finding("warning", "copied modality", message)


def _label(case: Case, label: np.ndarray) -> Iterator[Finding]:
    count = int(np.count_nonzero(label))
    if not count:
        yield Finding("warning", "empty segmentation", "the segmentation has no tumour")
        return
    box = case.box or (slice(None),) * 3
    voxels = case.image[box][label[box] > 0]  # few, so looking at each is cheap
    inside = int(np.count_nonzero(voxels.any(axis=-1)))
    outside = count - inside
    scan = np.count_nonzero(case.image[box].any(axis=-1) if case.signal is None else case.signal)
    share = outside / count
    turn = _fitting_turn(case, label, share) if share > _OUTSIDE_IS_TURNED else None
    if turn:
        yield Finding(
            "error",
            "outside the brain",
            f"{outside:,} of {count:,} tumour voxels lie where every modality is 0, and hardly any "
            f"would if the segmentation were {turn}: its header does not say how it lies; write it "
            "anew from the original",
        )
    elif outside > _OUTSIDE_IS_WRONG * count:
        yield Finding(
            "error",
            "outside the brain",
            f"{outside:,} of {count:,} tumour voxels lie where every modality is 0: image and "
            "segmentation do not belong together, or one of them is flipped",
        )
    elif inside > _NO_TUMOUR * scan:
        yield Finding(
            "error" if label.shape[0] > 1 else "warning",
            "whole brain",
            f"the segmentation covers {inside / scan:.0%} of the scan: it is a mask of the brain, "
            "or has tumour and background swapped",
        )
    elif inside > _HARDLY_TUMOUR * scan:
        yield Finding(
            "warning",
            "whole brain",
            f"the segmentation covers {inside / scan:.0%} of the scan, as no tumour should: see "
            "that it is not one of a tissue, or of half of the brain",
        )
    elif (contrast := tumour_contrast(case)) and max(map(abs, contrast.values())) < _UNSEEN:
        yield Finding(
            "warning",
            "unseen",
            "the tumour looks like what is around it in every modality: see that the segmentation "
            "is not that of another scan, or mirrored",
        )
    elif outside:
        yield Finding(
            "warning",
            "outside the brain",
            f"{outside:,} of {count:,} tumour voxels lie where every modality is 0",
        )


def tumour_contrast(case: Case) -> dict[str, float]:
    """Return how much brighter the tumour is than what is around it, by modality.

    The unit is the standard deviation in both. It is empty where there is no tumour, or no FLAIR,
    which shows most tumours, or only one slice.
    """
    if case.label is None or len(case.label) == 1 or anatomy.FLAIR not in case.modalities:
        return {}
    sides = bounding_box(case.label > 0)
    box = tuple(slice(max(side.start - _AROUND, 0), side.stop + _AROUND) for side in sides)
    scan, tumour = case.image[box], case.label[box] > 0
    in_slice = ndimage.generate_binary_structure(2, 1)[np.newaxis]
    around = ndimage.binary_dilation(tumour, in_slice, _AROUND) & ~tumour
    inside, outside = (scan[m & scan.any(axis=-1)].astype(np.float64) for m in (tumour, around))
    if not (len(inside) and len(outside)):
        return {}
    spread = np.sqrt((inside.var(axis=0) + outside.var(axis=0)) / 2)
    contrast = (inside.mean(axis=0) - outside.mean(axis=0)) / np.maximum(spread, 1e-9)
    return dict(zip(case.modalities, contrast.tolist(), strict=True))


def _fitting_turn(case: Case, label: np.ndarray, outside: float) -> str | None:
    """Name the way in which a label (D, H, W) must be turned to lie in the brain, if there is one.

    outside: share of its voxels that lies outside now.
    """
    labelled = np.flatnonzero(label)
    labelled = labelled[:: -(-labelled.size // _ENOUGH_VOXELS)]
    places = np.stack(np.unravel_index(labelled, label.shape), axis=-1)
    last = np.array(label.shape) - 1
    for order in itertools.permutations(range(3)):
        if tuple(label.shape[axis] for axis in order) != label.shape:
            continue
        for flips in itertools.product((False, True), repeat=3):
            turned = np.where(flips, last - places[:, order], places[:, order])
            inside = case.image[tuple(turned.T)].any(axis=-1)
            if 1 - inside.mean() <= _FITS * outside:
                names = [name for name, flip in zip(_AXES, flips, strict=True) if flip]
                swapped = [name for axis, name in enumerate(_AXES) if order[axis] != axis]
                parts = [f"flipped in {' and '.join(names)}"] if names else []
                parts += [f"turned, with {' and '.join(swapped)} swapped"] if swapped else []
                return " and ".join(parts)
    return None


def note_on_intensities(case: Case, data: DataSettings) -> list[str]:
    """Say that a case holds other intensities than the scans of section `data` of a run.

    A case of which it is not known, such as an array, is believed to hold the same.
    """
    usual, found = data.facts.intensities, case.intensities
    if found == usual or not (found and usual):
        return []
    return [
        f"holds {found}, but the run was trained on {usual} (data.layout={data.layout}), which "
        "look otherwise to a network: the masks are not to be trusted; give scans of that kind, or "
        "use a run that was trained on this one"
    ]


def voxel_error(sizes: Sequence[float]) -> str | None:
    """Say that no scan of a head has voxels of these sizes (D, H, W) in mm; else nothing."""
    shortest, longest = VOXEL_MM
    each = all(shortest <= size <= longest for size in sizes)
    if each and max(sizes) > LONGEST_MM and min(sizes) < SHORTEST_MM:
        return None
    return (
        f"voxels of {format_sizes(sizes)} mm (depth x height x width) are impossible in a scan of "
        "a head: correct the voxel size or its unit in the header (xyzt_units)"
    )


def voxel_note(smallest: Sequence[float], largest: Sequence[float], *, resampled: bool) -> str:
    """Return what is said of a scan whose voxels are unlike those of the training, {} their size.

    Sizes (D, H, W) are in mm; `resampled` says whether scans are brought to the run's own grid.
    """
    sizes = " to ".join(dict.fromkeys(format_sizes(each) for each in (smallest, largest)))
    effect = (
        "what lies between its slices was not scanned and is interpolated, so small parts of a "
        "tumour may be missed: look at the masks"
        if resampled
        else "the network sees voxels, not mm, so the masks are not to be trusted: resample the "
        "scan first, or use a run that was trained with data.spacing"
    )
    return (
        f"has voxels of {{}} mm (depth x height x width), the training's were {sizes} mm: {effect}"
    )


def voxel_limits(
    smallest: Sequence[float], largest: Sequence[float], *, resampled: bool
) -> tuple[list[float], list[float]]:
    """Return the voxel sizes (D, H, W) in mm from which and up to which a scan is as in training.

    Finer voxels than the training's do no harm where scans are resampled.
    """
    least = [0.0 if resampled else size / _LIKE_TRAINING for size in smallest]
    return least, [size * _LIKE_TRAINING for size in largest]


def intensity_profile(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Return what tells modalities apart, whatever a scanner's unit: (..., C, 2).

    It is the logarithm of each channel's mean, relative to the others', and that of its deviation
    relative to its mean. Those of a channel below 0 are not numbers.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        level = np.log(np.asarray(mean, float))
        contrast = np.log(np.asarray(deviation, float)) - level
    return np.stack([level - level.mean(axis=-1, keepdims=True), contrast], axis=-1)


def likelier_order(case: Case, usual: np.ndarray, spread: np.ndarray) -> tuple[int, ...] | None:
    """Return for each modality which channel of a case is likelier it; None if the order may stand.

    Args:
        usual: `intensity_profile` of the training's scans, their mean (C, 2).
        spread: its standard deviation (C, 2).
    """
    voxels = case.image[case.image.any(axis=-1)].astype(np.float64)
    measured = [v[v != 0] for v in voxels.T]
    if len(measured) > _MOST_PERMUTED or not all(v.size for v in measured):
        return None
    found = intensity_profile(
        np.array([v.mean() for v in measured]), np.array([v.std() for v in measured])
    )
    if not (np.isfinite(found).all() and np.isfinite(usual).all()):
        return None
    wide = np.maximum(spread, _LEAST_SPREAD)

    def misfit(order: Sequence[int]) -> float:
        return float((((found[list(order)] - usual) / wide) ** 2).sum())

    as_given = tuple(range(len(measured)))
    best = min(itertools.permutations(as_given), key=misfit)
    return best if misfit(as_given) - misfit(best) > 2 * SPEAKS_AGAINST else None


def group_notes(notes: Iterable[tuple[str, Sequence[str]]]) -> dict[str, list[str]]:
    """Return each note -> the ids of the cases that have it, the most frequent first.

    `notes` are pairs of a case's id and its notes.
    """
    found: dict[str, list[str]] = {}
    for case_id, of_case in notes:
        for note in of_case:
            found.setdefault(note, []).append(case_id)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def format_notes(notes: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield a line for each of the most frequent notes, which names a case that has it."""
    for note, cases in itertools.islice(notes.items(), _MOST_LINES):
        more = f" and {len(cases) - 1} more case(s)" if len(cases) > 1 else ""
        yield f"{cases[0]}{more}: {note}."
    if len(notes) > _MOST_LINES:
        yield f"{len(notes) - _MOST_LINES} more note(s) of this kind; kerasseg verify names all."


def format_sizes(sizes: Sequence[float]) -> str:
    """Format sizes such as (155, 240, 240) as 155x240x240."""
    return "x".join(f"{size:g}" for size in sizes)


def read_case(source: CaseSource, settings: DataSettings) -> Case:
    """Load a case, check it, and bring it to the grid that section `data` asks for.

    Raises `UserError` for a file that cannot be read and for anything that `findings_of` calls an
    error.
    """
    return to_grid(check_case(source.load()), settings)


def to_grid(case: Case, settings: DataSettings) -> Case:
    """Resize a case to `data.size` or resample it to `data.spacing`, if either is set."""
    if settings.size is not None:
        return resize_case(case, settings.size)
    if settings.spacing is None:
        return case
    order = 3 if settings.interpolation == "cubic" else 1
    wrong = grid_error(case.image.shape[:3], case.spacing, settings.spacing)
    if wrong:
        raise UserError(f"{case.case_id}: {wrong}.")
    return resample_case(case, settings.spacing, order)


def grid_error(shape: Sequence[int], spacing: Sequence[float], new: Sequence[float]) -> str | None:
    """Say that a scan (D, H, W) brought to voxels of `new` mm would be no head's; else nothing."""
    lengths = [count * size for count, size in zip(shape, spacing, strict=True)]
    voxels = [length / size for length, size in zip(lengths, new, strict=True)]
    # A scan of few slices keeps few, and one of a single slice that one, however thin.
    least = [min(count, _LEAST_VOXELS) - 0.5 if count > 1 else 0 for count in shape]
    if max(voxels) <= _MOST_VOXELS and all(n >= m for n, m in zip(voxels, least, strict=True)):
        return None
    return (
        f"is {format_sizes(lengths)} mm (depth x height x width), which data.spacing={list(new)} "
        f"would make {format_sizes([round(count, 1) for count in voxels])} voxels: correct the "
        "voxel size in the header of the scan, or data.spacing"
    )
