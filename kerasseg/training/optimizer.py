"""The optimiser that a config asks for."""

from collections.abc import Sequence
from typing import Any

import keras

from kerasseg.settings.optimizer import OptimizerSettings
from kerasseg.training import adam, muon
from kerasseg.training.schedules import learning_rate_schedule
from kerasseg.training.update_rules import UpdateRules


class Adam(UpdateRules, adam.Adam):
    """Adam; with weight decay AdamW."""


class SGD(UpdateRules, keras.optimizers.SGD):
    """Stochastic gradient descent with momentum."""


class Lion(UpdateRules, keras.optimizers.Lion):
    """Lion (Chen et al. 2023, arXiv:2302.06675)."""


class Muon(UpdateRules, muon.Muon):
    """Muon for kernels, AdamW for the rest."""


def build_optimizer(
    settings: OptimizerSettings,
    epochs: int,
    updates_per_epoch: int,
    *,
    encoder: Sequence[keras.Variable] = (),
    heads: Sequence[keras.Variable] = (),
) -> UpdateRules:
    """The optimiser on its schedule, to be made under the strategy's scope.

    `encoder`: variables at `encoder_factor` of the learning rate; `heads`: those of the output
    layers, which Muon leaves to Adam. Accumulation and clipping are `update.py`'s.
    """
    common: dict[str, Any] = {
        "learning_rate": learning_rate_schedule(settings, epochs, updates_per_epoch),
        "weight_decay": settings.weight_decay,
        "encoder": encoder,
        "encoder_factor": settings.encoder_factor,
        "average_momentum": settings.ema,
    }
    momentum: dict[str, Any] = {"momentum": settings.momentum, "nesterov": settings.nesterov}
    betas: dict[str, Any] = {"beta_1": settings.beta_1, "beta_2": settings.beta_2}
    match settings.name:
        case "adam" | "adamw":
            return Adam(**betas, **common)
        case "sgd":
            return SGD(**momentum, **common)
        case "lion":
            return Lion(**betas, **common)
        case "muon":
            return Muon(**momentum, **betas, heads=heads, **common)
