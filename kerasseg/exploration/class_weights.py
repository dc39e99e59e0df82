"""Class weights suggested for the loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kerasseg import anatomy
from kerasseg.settings.loss import LossTerm, weighted_term


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
