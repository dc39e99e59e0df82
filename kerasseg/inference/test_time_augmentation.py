"""Test-time augmentation: the mean over a window as it is, mirrored and turned.

Everything here works on arrays as well as on tensors of a graph, so that `Predictor` and exported
models share it.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from kerasseg.config.evaluation import PLANES, EvaluationSettings


@dataclass(frozen=True)
class Orientation:
    """An order of the spatial axes, some of which are then mirrored.

    Axis i of the result is axis order[i] of the window, and runs backwards if mirrored[i] is true.
    """

    order: tuple[int, ...]
    mirrored: tuple[bool, ...]

    def apply(self, batch: Any) -> Any:
        """Return windows (B, *spatial, C) in this orientation."""
        return self._mirror(self._transpose(tf.convert_to_tensor(batch), self.order))

    def undo(self, batch: Any) -> Any:
        """Return windows in this orientation as they were before `apply`."""
        back = [self.order.index(axis) for axis in range(len(self.order))]
        return self._transpose(self._mirror(batch), back)

    def after(self, first: "Orientation") -> "Orientation":
        """Return the single orientation that equals `first` followed by this one."""
        mirrored = zip(self.order, self.mirrored, strict=True)
        return Orientation(
            tuple(first.order[axis] for axis in self.order),
            tuple(first.mirrored[axis] != backwards for axis, backwards in mirrored),
        )

    def _mirror(self, batch: Any) -> Any:
        axes = [axis + 1 for axis, mirrored in enumerate(self.mirrored) if mirrored]
        return tf.reverse(batch, axes) if axes else batch

    def _transpose(self, batch: Any, order: Sequence[int]) -> Any:
        if list(order) == sorted(order):
            return batch
        return tf.transpose(batch, [0, *(axis + 1 for axis in order), len(order) + 1])


def orientations(settings: EvaluationSettings, axes: Sequence[str]) -> tuple[Orientation, ...]:
    """Return every orientation that `evaluation.flips` and `evaluation.rotations` ask for, once.

    They are all combinations of the flips, and each of these turned by 90, 180 and 270 degrees in
    each of the planes. The window as it is comes first. `axes` are the names of the window's axes.
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
    # A half turn equals two flips, and is computed once.
    return tuple(dict.fromkeys(turn.after(flip) for turn in turns for flip in flips))


def mean_over_orientations(
    network: Callable[[Any], Any], windows: Any, chosen: Sequence[Orientation]
) -> Any:
    """Return the mean of the network's predictions in the chosen orientations, all brought back."""
    total: Any = 0.0
    for orientation in chosen:
        found = orientation.undo(network(orientation.apply(windows)))
        total = found if len(chosen) == 1 else total + found / len(chosen)
    return total
