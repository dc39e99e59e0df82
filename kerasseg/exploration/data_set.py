"""`DataSet`: the statistics of all cases side by side."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kerasseg import anatomy
from kerasseg.exploration.case_statistics import TUMOUR, CaseStatistics
from kerasseg.exploration.measure_cases import LeftOut
from kerasseg.settings.data import DataSettings


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
