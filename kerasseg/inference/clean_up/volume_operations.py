"""What cleaning up needs of the library that holds the masks: numpy, or a TensorFlow graph."""

from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np

from kerasseg.inference.clean_up.components import label_components
from kerasseg.inference.clean_up.fill_holes import fill_holes

_ROUNDING: Final = 1e-6
"""Relative; a voxel size is float32 in a header and in a request. Sizes are counted in whole
voxels, so a component just large enough must not miss its limit by rounding."""


class VolumeOperations(Protocol):
    """Masks are (D, H, W) bool and know `&`, `|` and `~`."""

    def components(self, mask: Any) -> tuple[Any, Any]:
        """Numbers (D, H, W) of the connected components, 26 neighbours, and the voxels of each
        number; the numbers grow with a component's first voxel. The background counts none."""
        ...

    def fill_holes(self, mask: Any) -> Any:
        """The mask with what it cuts off from the outside; see `fill_holes`."""
        ...

    def take(self, table: Any, places: Any) -> Any:
        """table[places]."""
        ...

    def first_largest(self, sizes: Any) -> Any:
        """The number of the largest size, of equals the first."""
        ...

    def reaches(self, sizes: Any, spacing: Any, minimum: float) -> Any:
        """Whether so many voxels of `spacing` (D, H, W) mm are `minimum` mm^3 or more."""
        ...

    def count(self, mask: Any) -> Any:
        """The voxels of a mask."""
        ...


def least_volume(minimum: float) -> float:
    """mm^3 from which on something is not smaller than `minimum`, whatever was rounded."""
    return minimum * (1 - _ROUNDING)


class ArrayOperations:
    """With numpy and scipy."""

    def components(self, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return label_components(mask)

    def fill_holes(self, mask: np.ndarray) -> np.ndarray:
        return fill_holes(mask)

    def take(self, table: np.ndarray, places: np.ndarray) -> np.ndarray:
        return table[places]

    def first_largest(self, sizes: np.ndarray) -> int:
        return int(sizes.argmax())

    def reaches(self, sizes: Any, spacing: Sequence[float], minimum: float) -> Any:
        return np.asarray(sizes) * float(np.prod(spacing)) >= least_volume(minimum)

    def count(self, mask: np.ndarray) -> int:
        return int(np.count_nonzero(mask))


ARRAYS: Final = ArrayOperations()
