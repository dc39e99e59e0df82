"""How far a written model is from the network it was made of."""

from collections.abc import Sequence

import keras
import numpy as np

from kerasseg.serving.formats.runtime import Runtime

Shape = tuple[int, ...]


def checked_shapes(patch: Sequence[int], channels: int, *, any_size: bool) -> list[Shape]:
    """A batch of one and of two patches, and of one twice as long where any size is taken."""
    shapes = [(1, *patch, channels), (2, *patch, channels)]
    return [*shapes, (1, 2 * patch[0], *patch[1:], channels)] if any_size else shapes


def largest_difference(network: keras.Model, runtime: Runtime, shapes: Sequence[Shape]) -> float:
    """The largest difference of a probability, over random patches of those shapes.

    The patches are normal noise, as z-scored scans are about that large. Infinite where a value is
    not finite or the shapes of the probabilities differ.
    """
    random = np.random.default_rng(0)
    worst = 0.0
    for shape in shapes:
        patches = random.standard_normal(shape, np.float32)
        expected = keras.ops.convert_to_numpy(network(patches, training=False))
        found = runtime.predict(patches)
        if found.shape != expected.shape or not np.isfinite(found).all():
            return float("inf")
        worst = max(worst, float(np.abs(found - expected).max()))
    return worst
