"""Class weights suggested for the loss.

`Intensities`: how one modality of one case is distributed, without its voxels.

`CaseStatistics`: one case in numbers, small enough to be sent between processes.

Raw cases -> their statistics, in parallel processes.

`DataSet`: the statistics of all cases side by side.

`cases.csv`: a row per case.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from scipy import ndimage

from kerasseg import anatomy
from kerasseg.config.data import DataSettings
from kerasseg.config.experiment import Experiment
from kerasseg.config.loss import LossTerm, weighted_term
from kerasseg.datasets.case import Box, Case, CaseSource
from kerasseg.datasets.checks import read_case
from kerasseg.datasets.nifti import bounding_box
from kerasseg.errors import UserError
from kerasseg.files import atomic_write
from kerasseg.parallel import in_processes
from kerasseg.records.normalise import EPSILON, brain_mask, z_score
from kerasseg.tensorflow_setup import usable_cores

PERCENTILES = (1, 50, 99)
_BINS = 256
_TAILS = (0.1, 99.9)
"""Percentiles between which the histogram lies: one hot voxel would leave all others one bin."""


@dataclass(frozen=True)
class Intensities:
    """The non-zero voxels of one modality.

    count:           how many there are
    mean, deviation: those of the z-score
    percentiles:     values at `PERCENTILES`
    start, width:    lower edge and width of the histogram's bins
    histogram:       (n <= 256,) voxels per bin; those beyond the last bins are left out
    """

    count: int
    mean: float
    deviation: float
    percentiles: tuple[float, float, float]
    start: float
    width: float
    histogram: np.ndarray

    @property
    def end(self) -> float:
        """Upper edge of the last bin."""
        return self.start + self.width * self.histogram.size

    def shares(self, edges: np.ndarray) -> np.ndarray:
        """Share of the voxels between neighbouring `edges`, raw values: (E,) -> (E - 1,)."""
        own_edges = self.start + self.width * np.arange(self.histogram.size + 1)
        below = np.concatenate([[0], np.cumsum(self.histogram)]) / max(self.count, 1)
        return np.diff(np.interp(edges, own_edges, below))

    def normalised_shares(self, edges: np.ndarray) -> np.ndarray:
        """Share of the voxels between neighbouring `edges`, values after the z-score."""
        if self.deviation == 0:
            return (edges[:-1] <= 0) & (edges[1:] > 0) & (self.count > 0)  # all of them are 0
        return self.shares(self.mean + edges * (self.deviation + EPSILON))


def intensities_of(values: np.ndarray) -> Intensities:
    """Measure the voxels (n,) of one modality that are not 0."""
    _, (mean,), (deviation,) = z_score(values[:, np.newaxis])
    if not values.size:
        return Intensities(0, mean, deviation, (0.0, 0.0, 0.0), 0.0, 1.0, np.zeros(1, np.int64))
    low, high, *percentiles = (
        float(v)
        for v in np.percentile(values, (*_TAILS, *PERCENTILES), method="closest_observation")
    )
    if np.array_equal(values, np.rint(values)):
        # Whole numbers must fill bins evenly, or the curve becomes a comb.
        width = float(np.ceil((high - low + 1) / _BINS))
        start, bins = low - 0.5, int(np.ceil((high - low + 1) / width))
    else:
        start, bins = low, _BINS
        width = (high - low) / bins or 1.0
    histogram, _ = np.histogram(values, bins, (start, start + width * bins))
    first, median, last = percentiles
    return Intensities(values.size, mean, deviation, (first, median, last), start, width, histogram)


HEIGHT_BINS = 50
"""Bins of the relative height in the brain, from its lowest slice to its highest."""

TUMOUR = "tumour"
"""The union of all classes."""

_CORNERS_TOUCH = np.ones((3, 3, 3))


@dataclass(frozen=True)
class CaseStatistics:
    """One case. Without a segmentation what it would have told is None or empty.

    shape:        (D, H, W); spacing: (D, H, W) in mm
    brain_voxels: voxels with a value other than 0 in any modality; brain_slices: axial slices
                  from the lowest to the highest of them
    voxels:       class -> labelled voxels
    components:   parts of the tumour that touch nowhere, not even at a corner
    centre:       centre of mass of the tumour in the brain's box, 0..1 along D, H, W
    presence:     class, and `TUMOUR` -> (50,) share of the axial slices that have it, by height
    intensities:  modality -> its distribution
    """

    case_id: str
    patient_id: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    brain_voxels: int
    brain_slices: int
    intensities: dict[str, Intensities]
    voxels: dict[str, int] | None = None
    components: int | None = None
    centre: tuple[float, float, float] | None = None
    presence: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def tumour_voxels(self) -> int | None:
        """Voxels of any class."""
        return None if self.voxels is None else sum(self.voxels.values())

    @property
    def millilitres(self) -> float:
        """Volume of one voxel in mL."""
        return float(np.prod(self.spacing)) / 1000


def measure(case: Case) -> CaseStatistics:
    """Everything that the page shows of one case. Memory: one channel more than the case."""
    box, brain = brain_mask(case.image, known=case.box)
    depth, height, width, _ = case.image.shape
    intensities = {}
    for channel, modality in enumerate(case.modalities):
        values = case.image[(*box, channel)]
        intensities[modality] = intensities_of(values[values != 0])
    statistics = CaseStatistics(
        case_id=case.case_id,
        patient_id=case.patient_id,
        shape=(depth, height, width),
        spacing=case.spacing,
        brain_voxels=int(np.count_nonzero(brain)),
        brain_slices=brain.shape[0],
        intensities=intensities,
    )
    if case.label is None:
        return statistics
    tumour_box = bounding_box(case.label > 0)
    tumour = case.label[tumour_box] > 0
    classes = anatomy.CLASSES[case.classes]
    return replace(
        statistics,
        voxels={
            name: int(np.count_nonzero(case.label[tumour_box] == class_id))
            for name, class_id in classes.items()
        },
        components=int(ndimage.label(tumour, _CORNERS_TOUCH)[1]),
        centre=_centre(tumour, tumour_box, box),
        presence={name: _presence(case.label[box] == i) for name, i in classes.items()}
        | {TUMOUR: _presence(case.label[box] > 0)},
    )


def _centre(tumour: np.ndarray, tumour_box: Box, brain: Box) -> tuple[float, float, float] | None:
    if not tumour.any():
        return None
    # A voxel's centre lies half a voxel behind its corner.
    d, h, w = (
        float((mass + 0.5 + own.start - outer.start) / (outer.stop - outer.start))
        for mass, own, outer in zip(ndimage.center_of_mass(tumour), tumour_box, brain, strict=True)
    )
    return d, h, w


def _presence(mask: np.ndarray) -> np.ndarray:
    """Mask (D, H, W) -> (50,) share of each bin of height that lies in slices with any voxel."""
    slices = mask.any(axis=(1, 2))
    if not slices.size:
        return np.zeros(HEIGHT_BINS)
    below = np.concatenate([[0], np.cumsum(slices)])
    edges = np.linspace(0, slices.size, HEIGHT_BINS + 1)
    return np.diff(np.interp(edges, np.arange(slices.size + 1), below)) / (edges[1] - edges[0])


@dataclass(frozen=True)
class LeftOut:
    """A case that could not be read, and why."""

    case_id: str
    patient_id: str
    reason: str


def measure_cases(
    experiment: Experiment, sources: Sequence[CaseSource]
) -> Iterator[CaseStatistics | LeftOut]:
    """Statistics in order of `sources`; each process holds one case in memory.

    Raises `UserError` when no process can be started at all.
    """
    workers = min(experiment.records.workers or usable_cores(), len(sources))
    yield from in_processes(partial(_measure, experiment.data), sources, workers, _died)


def _measure(settings: DataSettings, source: CaseSource) -> CaseStatistics | LeftOut:
    try:
        case = read_case(source, settings)
    except UserError as error:
        return LeftOut(source.case_id, source.patient_id, str(error))
    except Exception as error:
        # A file that our readers did not expect must not hide the other cases.
        return LeftOut(source.case_id, source.patient_id, f"{type(error).__name__}: {error}")
    return measure(case)


def _died(source: CaseSource) -> LeftOut:
    reason = (
        "the process that read it was killed, most likely because memory ran out: try again with "
        "records.workers=1"
    )
    return LeftOut(source.case_id, source.patient_id, reason)


@dataclass(frozen=True)
class DataSet:
    """All cases that could be read, in order, and those that could not."""

    cases: Sequence[CaseStatistics]
    left_out: Sequence[LeftOut]
    settings: DataSettings

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """What the segmentations tell apart."""
        return tuple(anatomy.CLASSES[self.settings.classes])

    @property
    def knows_space(self) -> bool:
        """Whether voxels have a size in mm."""
        return self.settings.knows_spacing

    @cached_property
    def flat(self) -> bool:
        """Whether every case is a single slice."""
        return all(case.shape[0] == 1 for case in self.cases)

    @property
    def unit(self) -> str:
        """What `volume` counts."""
        if self.knows_space:
            return "mL"
        return "pixels" if self.flat else "voxels"

    @cached_property
    def labelled(self) -> list[CaseStatistics]:
        """Cases with a segmentation, those without a tumour among them."""
        return [case for case in self.cases if case.voxels is not None]

    @cached_property
    def with_tumour(self) -> list[CaseStatistics]:
        """Cases with at least one tumour voxel."""
        return [case for case in self.labelled if case.tumour_voxels]

    def volume(self, case: CaseStatistics, name: str = TUMOUR) -> float:
        """Volume of a class of a labelled case, or of its whole tumour, in `unit`."""
        assert case.voxels is not None
        voxels = sum(case.voxels.values()) if name == TUMOUR else case.voxels[name]
        return self.in_unit(case, voxels)

    def in_unit(self, case: CaseStatistics, voxels: int) -> float:
        """Voxels of a case in `unit`."""
        return voxels * case.millilitres if self.knows_space else float(voxels)

    @cached_property
    def voxels(self) -> dict[str, int]:
        """Class -> its voxels in all cases."""
        return {name: sum((c.voxels or {})[name] for c in self.labelled) for name in self.classes}

    @cached_property
    def cases_with(self) -> dict[str, int]:
        """Class -> cases that have it."""
        found = Counter(
            name for case in self.labelled for name, n in (case.voxels or {}).items() if n
        )
        return {name: found[name] for name in self.classes}

    @property
    def brain_share(self) -> float:
        """Share of the labelled cases' voxels that lie in the brain."""
        every = sum(int(np.prod(case.shape)) for case in self.labelled)
        return sum(case.brain_voxels for case in self.labelled) / max(every, 1)

    @property
    def tumour_share(self) -> float:
        """Share of the labelled cases' brain voxels that are tumour."""
        brain = sum(case.brain_voxels for case in self.labelled)
        return sum(self.voxels.values()) / max(brain, 1)

    @cached_property
    def sliced(self) -> list[CaseStatistics]:
        """Labelled cases of more than one slice."""
        return [case for case in self.labelled if case.shape[0] > 1]

    @property
    def tumour_slices(self) -> float:
        """Share of the brain's axial slices that have tumour, in the cases of several slices."""
        slices = np.array([case.brain_slices for case in self.sliced])
        shares = np.array([case.presence[TUMOUR].mean() for case in self.sliced])
        return float((slices * shares).sum() / max(slices.sum(), 1))


_AXES = ("depth", "height", "width")


def write_cases_csv(data_set: DataSet, path: Path) -> None:
    """Write every case, then those left out with the reason; what is not known stays empty."""
    rows = [_row(data_set, index) for index in range(len(data_set.cases))]
    rows += [
        {"case_id": case.case_id, "patient_id": case.patient_id, "left_out": case.reason}
        for case in data_set.left_out
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*rows[0], "left_out"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_write(path, "--output") as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def _row(data_set: DataSet, index: int) -> dict[str, object]:
    case = data_set.cases[index]
    row: dict[str, object] = {"case_id": case.case_id, "patient_id": case.patient_id}
    row |= zip(_AXES, case.shape, strict=True)
    spacing = case.spacing if data_set.knows_space else ("", "", "")
    row |= {f"spacing_{axis}_mm": v for axis, v in zip(_AXES, spacing, strict=True)}
    counts = {"brain": case.brain_voxels, "tumour": case.tumour_voxels}
    counts |= {name: (case.voxels or {}).get(name) for name in data_set.classes}
    row |= {f"{name}_voxels": n for name, n in counts.items()}
    if data_set.knows_space:
        row |= {
            f"{name}_ml": None if n is None else f"{n * case.millilitres:.4f}"
            for name, n in counts.items()
        }
    row["tumour_components"] = case.components
    for axis, place in zip(_AXES, case.centre or (None,) * 3, strict=True):
        row[f"tumour_centre_{axis}"] = None if place is None else f"{place:.4f}"
    for modality, found in case.intensities.items():
        row[f"{modality}_mean"] = f"{found.mean:.6g}"
        row[f"{modality}_std"] = f"{found.deviation:.6g}"
        for level, value in zip(PERCENTILES, found.percentiles, strict=True):
            row[f"{modality}_p{level}"] = f"{value:.6g}"
    return row


@dataclass(frozen=True)
class ClassWeights:
    """Suggested weights of a target's channels, the background left out.

    shares: channel -> share of all tumour voxels that it has
    weights: channel -> weight, rounded; None where a single channel needs none, or where a channel
        never occurs
    absent: channels that never occur
    term: number of the term of the loss that takes them; None where no term does
    in_config: channel -> the weight that this term has now
    """

    shares: dict[str, float]
    weights: dict[str, float] | None
    absent: tuple[str, ...]
    term: int | None
    in_config: dict[str, float]

    @property
    def values(self) -> str:
        """The weights as a list of a config file."""
        return f"[{', '.join(f'{w:g}' for w in (self.weights or {}).values())}]"

    @property
    def override(self) -> str:
        """The weights as an override on the command line."""
        return f"loss.{self.term}.weights={self.values.replace(' ', '')}"


def suggest_class_weights(
    voxels: Mapping[str, int], classes: str, target: str, loss: Sequence[LossTerm]
) -> ClassWeights:
    """Weights of `target`'s tumour channels from the voxels of each class of `classes`.

    classes: a row of `anatomy.CLASSES`. loss: the terms, of which the first that has class weights
    takes them.

    Channel c has weight f_c^-1/2 / mean_k(f_k^-1/2), f_c its share of all tumour voxels: inverse
    frequency, damped by the square root so that a rare class does not drown the others, mean 1
    (the "smoothed" weights in Cui et al. 2019, arXiv:1901.05555, after Mikolov et al. 2013,
    arXiv:1310.4546, and Mahajan et al. 2018, arXiv:1805.00932).
    """
    of_id = {class_id: voxels[name] for name, class_id in anatomy.CLASSES[classes].items()}
    every = sum(of_id.values())
    channels = anatomy.tumour_channels(target)
    ids = anatomy.TARGETS[target]
    shares = {name: sum(of_id.get(i, 0) for i in ids[name]) / max(every, 1) for name in channels}
    absent = tuple(name for name, share in shares.items() if share == 0)
    term = weighted_term(loss)
    in_config = _in_config(loss, channels)
    if absent or len(channels) == 1:
        return ClassWeights(shares, None, absent, term, in_config)
    raw = np.array(list(shares.values())) ** -0.5
    weights = {name: round(float(w), 2) for name, w in zip(shares, raw / raw.mean(), strict=True)}
    return ClassWeights(shares, weights, (), term, in_config)


def _in_config(loss: Sequence[LossTerm], channels: Sequence[str]) -> dict[str, float]:
    term = weighted_term(loss)
    weights = getattr(loss[term], "weights", None) if term is not None else None
    # The background's weight, where there is one, comes first.
    now = weights[-len(channels) :] if weights else [1.0] * len(channels)
    return dict(zip(channels, now, strict=True))
