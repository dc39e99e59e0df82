"""Class weights suggested for the Dice loss."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kerasseg import anatomy


@dataclass(frozen=True)
class ClassWeights:
    """Suggested weights of a target's channels.

    shares: channel -> share of all tumour voxels that it has
    weights: channel -> weight, rounded; None where a single channel needs none, or where a channel
        never occurs
    absent: channels that never occur
    """

    shares: dict[str, float]
    weights: dict[str, float] | None
    absent: tuple[str, ...]

    @property
    def values(self) -> str:
        """The weights as a list of a config file."""
        return f"[{', '.join(f'{w:g}' for w in (self.weights or {}).values())}]"

    @property
    def override(self) -> str:
        """The weights as an override on the command line."""
        return f"loss.dice.class_weights={self.values.replace(' ', '')}"


def suggest_class_weights(voxels: Mapping[str, int], classes: str, target: str) -> ClassWeights:
    """Weights of `target`'s channels from the voxels of each class (`anatomy.CLASSES[classes]`).

    Channel c has weight f_c^-1/2 / mean_k(f_k^-1/2), f_c its share of all tumour voxels: inverse
    frequency, damped by the square root so that a rare class does not drown the others, mean 1
    (the "smoothed" weights in Cui et al. 2019, arXiv:1901.05555, after Mikolov et al. 2013,
    arXiv:1310.4546, and Mahajan et al. 2018, arXiv:1805.00932).
    """
    of_id = {class_id: voxels[name] for name, class_id in anatomy.CLASSES[classes].items()}
    every = sum(of_id.values())
    channels = anatomy.TARGETS[target]
    shares = {
        name: sum(of_id.get(i, 0) for i in ids) / max(every, 1) for name, ids in channels.items()
    }
    absent = tuple(name for name, share in shares.items() if share == 0)
    if absent or len(channels) == 1:
        return ClassWeights(shares, None, absent)
    raw = np.array(list(shares.values())) ** -0.5
    weights = {name: round(float(w), 2) for name, w in zip(shares, raw / raw.mean(), strict=True)}
    return ClassWeights(shares, weights, ())
