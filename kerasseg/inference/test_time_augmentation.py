"""Test-time augmentation: the ways to mirror and turn a window, and back."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from kerasseg.config.evaluation import PLANES, EvaluationSettings


@dataclass(frozen=True)
class Orientation:
    """Axes in another order, then some of them mirrored.

    order:    axis i of the result is axis order[i] of the window
    mirrored: which axes of the result run backwards
    """

    order: tuple[int, ...]
    mirrored: tuple[bool, ...]

    def apply(self, batch: Any) -> Any:
        """Windows (B, *spatial, C) in this orientation."""
        return self._mirror(self._transpose(tf.convert_to_tensor(batch), self.order))

    def undo(self, batch: Any) -> Any:
        """The inverse of `apply`."""
        back = [self.order.index(axis) for axis in range(len(self.order))]
        return self._transpose(self._mirror(batch), back)

    def after(self, first: "Orientation") -> "Orientation":
        """One orientation that does what `first` and then this one does."""
        return Orientation(
            tuple(first.order[axis] for axis in self.order),
            tuple(
                first.mirrored[axis] != mirrored
                for axis, mirrored in zip(self.order, self.mirrored, strict=True)
            ),
        )

    def _mirror(self, batch: Any) -> Any:
        axes = [axis + 1 for axis, mirrored in enumerate(self.mirrored) if mirrored]
        return tf.reverse(batch, axes) if axes else batch

    def _transpose(self, batch: Any, order: Sequence[int]) -> Any:
        if list(order) == sorted(order):
            return batch
        return tf.transpose(batch, [0, *(axis + 1 for axis in order), len(order) + 1])


def orientations(settings: EvaluationSettings, axes: Sequence[str]) -> tuple[Orientation, ...]:
    """Every orientation that `evaluation.flips` and `evaluation.rotations` ask for, once.

    axes: the names of the window's axes, three or, of slices, two

    Those are all combinations of the flips, then each of them turned by 90, 180 and 270 degrees in
    each of the planes. The window as it is comes first.
    """
    rank = len(axes)
    plain = tuple(range(rank))
    flips = [
        Orientation(plain, tuple(axis in chosen for axis in axes))
        for count in range(len(settings.flips) + 1)
        for chosen in itertools.combinations(settings.flips, count)
    ]
    turns = [Orientation(plain, (False,) * rank)]
    for plane in settings.rotations:
        first, second = (axes.index(name) for name in PLANES[plane])
        order = list(plain)
        order[first], order[second] = second, first
        quarter = Orientation(tuple(order), tuple(axis == first for axis in plain))
        half = quarter.after(quarter)
        turns += [quarter, half, quarter.after(half)]
    return tuple(dict.fromkeys(turn.after(flip) for turn in turns for flip in flips))
