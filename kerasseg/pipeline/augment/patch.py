"""`Patch`: the form of a patch, which transforms must know."""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from kerasseg.config.experiment import PipelineSettings

AXES = {"axial": 0, "coronal": 1, "sagittal": 2}
"""The axis of (D, H, W) that a plane stands across."""
_NAMES = ("depth", "height", "width")


class Patch(NamedTuple):
    """The form of the patches of a pipeline; a tuple, so that compiled functions know it by value.

    size:       (n,) voxels
    modalities: M; the channels are M, or M of each slice one after the other in 2.5-D
    slices:     how many slices stand one after the other
    across:     the axis of the volume that slices lie across; None of a 3-D patch
    """

    size: tuple[int, ...]
    modalities: int
    slices: int = 1
    across: int | None = None

    @classmethod
    def of(cls, settings: PipelineSettings, modalities: int) -> "Patch":
        """Return the form of the patches that the settings ask for."""
        size, slices = settings.patch_size, settings.slices
        if len(size) == 3:
            return cls(size, modalities)
        return cls(size, modalities, 2 * slices.neighbours + 1, AXES[slices.axis])

    @property
    def inside(self) -> tuple[int, ...]:
        """The axes of the volume that the patch has, in order."""
        return tuple(axis for axis in range(3) if axis != self.across)

    @property
    def channel_count(self) -> int:
        """The number of channels of the image."""
        return self.modalities * self.slices

    def axes(self, names: Sequence[str]) -> tuple[int, ...]:
        """Return the places of named axes in the patch, without an axis that it lacks."""
        return tuple(self.inside.index(a) for a in map(_NAMES.index, names) if a in self.inside)

    def channels(self, of_modalities: tf.Tensor) -> tf.Tensor:
        """Repeat numbers of modalities (M,) for the channels (C,) of all slices."""
        return tf.tile(of_modalities, [self.slices])
