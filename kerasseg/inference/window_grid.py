"""`WindowGrid`: where the windows of a volume lie."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from kerasseg.datasets.case import Box

Start = tuple[int, int, int]


@dataclass(frozen=True)
class WindowGrid:
    """Windows (d, h, w) over a box of a volume, spread evenly along each axis from edge to edge.

    Neighbours overlap by at least the fraction `overlap`. Where the box is smaller than the window
    there is one, which stands out evenly on both sides.
    """

    box: Box
    window: tuple[int, int, int]
    overlap: float

    @cached_property
    def axes(self) -> tuple[tuple[int, ...], ...]:
        """First voxels of the windows along each axis, in the volume; negative outside of it."""
        return tuple(
            _starts(part.start, part.stop - part.start, size, self.overlap)
            for part, size in zip(self.box, self.window, strict=True)
        )

    def starts(self) -> Iterator[Start]:
        """First voxel of each window."""
        yield from itertools.product(*self.axes)

    def starts_over(self, box: Box) -> Iterator[Start]:
        """First voxel of each window that has voxels in `box`, which is given in the volume."""
        axes = [
            [s for s in starts if s < part.stop and s + size > part.start]
            for starts, part, size in zip(self.axes, box, self.window, strict=True)
        ]
        yield from itertools.product(*axes)

    def tiles(self) -> Iterator[Box]:
        """The box in pieces no larger than a window, which do not overlap."""
        pieces = (
            [slice(i, min(i + size, part.stop)) for i in range(part.start, part.stop, size)]
            for part, size in zip(self.box, self.window, strict=True)
        )
        yield from itertools.product(*pieces)


def shared_part(start: Sequence[int], size: Sequence[int], box: Box) -> tuple[Box, Box]:
    """What a window has in common with `box`: in places of the window, and of the box."""
    inside, outside = [], []
    for first, length, part in zip(start, size, box, strict=True):
        low, high = max(first, part.start), min(first + length, part.stop)
        inside.append(slice(low - first, high - first))
        outside.append(slice(low - part.start, high - part.start))
    return (inside[0], inside[1], inside[2]), (outside[0], outside[1], outside[2])


def window_step(size: int, overlap: float) -> int:
    """How far apart neighbours may be along an axis, in voxels."""
    return max(int(size * (1 - overlap)), 1)


def _starts(first: int, length: int, size: int, overlap: float) -> tuple[int, ...]:
    slack = length - size
    if slack <= 0:
        return (first - (-slack // 2),)
    step = window_step(size, overlap)
    count = -(-slack // step) + 1
    return tuple(first + round(i * slack / (count - 1)) for i in range(count))
