"""Statistics of a data set: each case in numbers, all cases together, and class weights."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
from scipy import ndimage

from kerasseg import anatomy
from kerasseg.config.data import DataSettings
from kerasseg.config.experiment import Experiment
from kerasseg.config.loss import LossTerm, weighted_term
from kerasseg.datasets.case import Box, Case, CaseSource, bounding_box
from kerasseg.datasets.checks import group_notes, read_case
from kerasseg.errors import UserError
from kerasseg.parallel import parallel_map
from kerasseg.records.normalise import EPSILON, brain_mask, z_score
from kerasseg.tensorflow_setup import usable_cores

TUMOUR = "tumour"
"""Name of the union of all classes."""
HEIGHT_BINS = 50
"""Bins of the relative height in the brain, from its lowest slice to its highest."""
PERCENTILES = (1, 50, 99)
_BINS = 256
_TAILS = (0.1, 99.9)
"""Percentiles at which the histogram ends. With one hot voxel inside, all others would share a
bin."""
KILLED = (
    "the process that read it was killed, most likely because memory ran out: try again with "
    "records.workers=1"
)
_CORNERS_TOUCH = np.ones((3, 3, 3))


@dataclass(frozen=True)
class Intensities:
    """Distribution of the non-zero voxels of one modality of one case.

    Attributes:
        mean: Mean that the z-score subtracts.
        deviation: Standard deviation by which the z-score divides.
        percentiles: Values at `PERCENTILES`.
        start: Lower edge of the histogram.
        width: Width of a bin.
        histogram: Voxels (n,) per bin, n <= 256; voxels outside of the bins are left out.
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
        """The upper edge of the last bin."""
        return self.start + self.width * self.histogram.size

    def shares(self, edges: np.ndarray) -> np.ndarray:
        """Return the share of the voxels (E - 1,) between edges (E,) of raw values."""
        own_edges = self.start + self.width * np.arange(self.histogram.size + 1)
        below = np.concatenate([[0], np.cumsum(self.histogram)]) / max(self.count, 1)
        return np.diff(np.interp(edges, own_edges, below))

    def normalised_shares(self, edges: np.ndarray) -> np.ndarray:
        """Return the share of the voxels (E - 1,) between edges (E,) of z-scores."""
        if self.deviation == 0:
            all_are_0 = (edges[:-1] <= 0) & (edges[1:] > 0) & (self.count > 0)
            return all_are_0.astype(float)
        return self.shares(self.mean + edges * (self.deviation + EPSILON))


def measure_intensities(values: np.ndarray) -> Intensities:
    """Measure the distribution of voxels (n,), none of which is 0."""
    _, (mean,), (deviation,) = z_score(values[:, np.newaxis])
    if not values.size:
        return Intensities(0, mean, deviation, (0.0, 0.0, 0.0), 0.0, 1.0, np.zeros(1, np.int64))
    low, high, *percentiles = (
        float(v)
        for v in np.percentile(values, (*_TAILS, *PERCENTILES), method="closest_observation")
    )
    if np.array_equal(values, np.rint(values)):
        # Each bin must hold as many whole numbers as the others, or the curve becomes a comb.
        width = float(np.ceil((high - low + 1) / _BINS))
        start, bins = low - 0.5, int(np.ceil((high - low + 1) / width))
    else:
        start, bins = low, _BINS
        width = (high - low) / bins or 1.0
    histogram, _ = np.histogram(values, bins, (start, start + width * bins))
    first, median, last = percentiles
    return Intensities(values.size, mean, deviation, (first, median, last), start, width, histogram)


@dataclass(frozen=True)
class CaseStatistics:
    """One case in numbers, few enough to be sent between processes.

    Attributes:
        shape: Voxels (D, H, W).
        spacing: Size of a voxel (D, H, W) in mm.
        brain_voxels: Voxels with a value other than 0 in any modality.
        brain_slices: Axial slices from the lowest to the highest brain voxel.
        intensities: Modality -> its distribution.
        voxels: Class -> labelled voxels; None without a segmentation.
        components: Parts of the tumour that do not even touch at a corner.
        centre: Centre of mass of the tumour in the brain's box, from 0 to 1 along D, H and W.
        presence: Class, and `TUMOUR` -> share (50,) of the axial slices that have it, by height.
        notes: What is odd about the scan, such as a modality that is a copy of another one.
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
    notes: tuple[str, ...] = ()

    @property
    def tumour_voxels(self) -> int | None:
        """The number of voxels of any class, or None without a segmentation."""
        return None if self.voxels is None else sum(self.voxels.values())

    @property
    def millilitres(self) -> float:
        """The volume of one voxel in mL."""
        return float(np.prod(self.spacing)) / 1000


def measure_case(case: Case) -> CaseStatistics:
    """Measure one case. This needs the memory of one channel on top of the case."""
    box, brain = brain_mask(case.image, known=case.box)
    depth, height, width, _ = case.image.shape
    intensities = {}
    for channel, modality in enumerate(case.modalities):
        values = case.image[(*box, channel)]
        intensities[modality] = measure_intensities(values[values != 0])
    statistics = CaseStatistics(
        case_id=case.case_id,
        patient_id=case.patient_id,
        shape=(depth, height, width),
        spacing=case.spacing,
        brain_voxels=int(np.count_nonzero(brain)),
        brain_slices=brain.shape[0],
        intensities=intensities,
        notes=tuple(case.notes),
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
    """Return for each bin of height (50,) the share of slices in which a mask has any voxel."""
    slices = mask.any(axis=(1, 2))
    if not slices.size:
        return np.zeros(HEIGHT_BINS)
    below = np.concatenate([[0], np.cumsum(slices)])
    edges = np.linspace(0, slices.size, HEIGHT_BINS + 1)
    return np.diff(np.interp(edges, np.arange(slices.size + 1), below)) / (edges[1] - edges[0])


@dataclass(frozen=True)
class LeftOut:
    """A case that could not be read, and the reason."""

    case_id: str
    patient_id: str
    reason: str


def measure_cases(
    experiment: Experiment, sources: Sequence[CaseSource]
) -> Iterator[CaseStatistics | LeftOut]:
    """Measure cases in parallel processes, each of which holds one case in memory.

    Yields the statistics of each case in the order of `sources`, or a `LeftOut` if it cannot be
    read. Raises `UserError` if no process can be started.
    """
    workers = min(experiment.records.workers or usable_cores(), len(sources))
    measure = partial(_read_and_measure, experiment.data)
    yield from parallel_map(
        measure, sources, workers, lambda s: LeftOut(s.case_id, s.patient_id, KILLED)
    )


def _read_and_measure(settings: DataSettings, source: CaseSource) -> CaseStatistics | LeftOut:
    try:
        case = read_case(source, settings)
    except UserError as error:
        return LeftOut(source.case_id, source.patient_id, str(error))
    except Exception as error:
        # A file that our readers did not expect must not hide the other cases.
        return LeftOut(source.case_id, source.patient_id, f"{type(error).__name__}: {error}")
    return measure_case(case)


@dataclass(frozen=True)
class DataSet:
    """The cases that could be read, in order, and those that could not."""

    cases: Sequence[CaseStatistics]
    left_out: Sequence[LeftOut]
    settings: DataSettings

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The classes of the segmentations."""
        return tuple(anatomy.CLASSES[self.settings.classes])

    @property
    def knows_space(self) -> bool:
        """True if the size of the voxels in mm is known."""
        return self.settings.facts.knows_spacing

    @cached_property
    def flat(self) -> bool:
        """True if every case is a single slice."""
        return all(case.shape[0] == 1 for case in self.cases)

    @property
    def unit(self) -> str:
        """The unit of `volume`."""
        if self.knows_space:
            return "mL"
        return "pixels" if self.flat else "voxels"

    @cached_property
    def labelled(self) -> list[CaseStatistics]:
        """The cases with a segmentation, which may be empty."""
        return [case for case in self.cases if case.voxels is not None]

    @cached_property
    def with_tumour(self) -> list[CaseStatistics]:
        """The cases with at least one tumour voxel."""
        return [case for case in self.labelled if case.tumour_voxels]

    def volume(self, case: CaseStatistics, name: str = TUMOUR) -> float:
        """Return the volume of a class, or of the whole tumour, of a labelled case in `unit`."""
        assert case.voxels is not None
        voxels = sum(case.voxels.values()) if name == TUMOUR else case.voxels[name]
        return self.in_unit(case, voxels)

    def in_unit(self, case: CaseStatistics, voxels: int) -> float:
        """Convert a number of voxels of a case to `unit`."""
        return voxels * case.millilitres if self.knows_space else float(voxels)

    @cached_property
    def notes(self) -> dict[str, list[str]]:
        """Return each note on scans -> the names of its cases, the most frequent note first."""
        return group_notes((case.case_id, case.notes) for case in self.cases)

    @cached_property
    def voxels(self) -> dict[str, int]:
        """The voxels of each class in all cases."""
        return {name: sum((c.voxels or {})[name] for c in self.labelled) for name in self.classes}

    @cached_property
    def cases_with(self) -> dict[str, int]:
        """The number of cases that have each class."""
        found = Counter(
            name for case in self.labelled for name, n in (case.voxels or {}).items() if n
        )
        return {name: found[name] for name in self.classes}

    @property
    def brain_share(self) -> float:
        """The share of the voxels of the labelled cases that lie in the brain."""
        every = sum(int(np.prod(case.shape)) for case in self.labelled)
        return sum(case.brain_voxels for case in self.labelled) / max(every, 1)

    @property
    def tumour_share(self) -> float:
        """The share of the brain voxels of the labelled cases that are tumour."""
        brain = sum(case.brain_voxels for case in self.labelled)
        return sum(self.voxels.values()) / max(brain, 1)

    @cached_property
    def sliced(self) -> list[CaseStatistics]:
        """The labelled cases of more than one slice."""
        return [case for case in self.labelled if case.shape[0] > 1]

    @property
    def tumour_slices(self) -> float:
        """The share of the brain's axial slices that have tumour, in cases of several slices."""
        slices = np.array([case.brain_slices for case in self.sliced])
        shares = np.array([case.presence[TUMOUR].mean() for case in self.sliced])
        return float((slices * shares).sum() / max(slices.sum(), 1))


@dataclass(frozen=True)
class ClassWeights:
    """Suggested weights of a target's tumour channels.

    Attributes:
        shares: Channel -> its share of all tumour voxels.
        weights: Channel -> rounded weight; None if there is only one channel, which needs none, or
            if a channel never occurs.
        absent: The channels that never occur.
        term: Number of the term of the loss that takes weights; None if no term does.
        in_config: Channel -> the weight that this term has now.
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
    """Suggest weights of a target's tumour channels from the voxels of each class.

    Channel c has the weight f_c^-1/2 / mean_k(f_k^-1/2), where f_c is its share of all tumour
    voxels: inverse frequency, damped by the square root so that a rare class does not drown the
    others, with mean 1 (the "smoothed" weights in Cui et al. 2019, arXiv:1901.05555, after Mikolov
    et al. 2013, arXiv:1310.4546, and Mahajan et al. 2018, arXiv:1805.00932).

    Args:
        voxels: Class -> number of voxels.
        classes: A row of `anatomy.CLASSES`.
        loss: The terms of the loss, of which the first that has class weights takes them.
    """
    of_id = {class_id: voxels[name] for name, class_id in anatomy.CLASSES[classes].items()}
    every = sum(of_id.values())
    channels = anatomy.tumour_channels(target)
    ids = anatomy.TARGETS[target]
    shares = {name: sum(of_id.get(i, 0) for i in ids[name]) / max(every, 1) for name in channels}
    absent = tuple(name for name, share in shares.items() if share == 0)
    term = weighted_term(loss)
    now = getattr(loss[term], "weights", None) if term is not None else None
    # The background's weight, where there is one, comes first.
    now = now[-len(channels) :] if now else [1.0] * len(channels)
    in_config = dict(zip(channels, now, strict=True))
    if absent or len(channels) == 1:
        return ClassWeights(shares, None, absent, term, in_config)
    raw = np.array(list(shares.values())) ** -0.5
    weights = {name: round(float(w), 2) for name, w in zip(shares, raw / raw.mean(), strict=True)}
    return ClassWeights(shares, weights, (), term, in_config)
