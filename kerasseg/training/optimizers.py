"""The optimiser that a config asks for.

What every optimiser here does around its own update of a variable.

Weights and their exponential moving averages.

How the learning rate goes, per update.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops

from kerasseg.config.training import OptimizerSettings
from kerasseg.training import adam, muon


class UpdateRules(keras.optimizers.Optimizer):
    """Mixed into a Keras optimiser: `class AdamW(UpdateRules, Adam)`.

    weight_decay:     decoupled (Loshchilov and Hutter 2019, arXiv:1711.05101): a kernel loses
                      rate * weight_decay of itself before its update. Variables of one axis,
                      which are the biases and the gamma and beta of every norm, do not decay
    encoder:          variables whose rate, and so whose decay, is `encoder_factor` of the others'
    average_momentum: of an exponential moving average of the weights; None for none. It counts
                      updates, not batches, and rises as (1 + t) / (10 + t) at the start, so that
                      the random weights of the beginning are soon forgotten

    Keras's own `weight_decay` knows one rate for all variables, and its `use_ema` averages on each
    replica. Gradients come averaged over batches and replicas, and clipped, from `update.py`.
    Variables without a gradient (of frozen layers) are left alone by all of this.
    """

    def __init__(
        self,
        *,
        weight_decay: float = 0.0,
        encoder: Sequence[keras.Variable] = (),
        encoder_factor: float = 1.0,
        average_momentum: float | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.decoupled_decay = weight_decay
        self.encoder_factor = encoder_factor
        self.average_momentum = average_momentum
        # Not the variables themselves, which Keras would take for the optimiser's own.
        self._encoder_ids = frozenset(id(variable) for variable in encoder)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self._rate_factors = tuple(
            self.encoder_factor if id(variable) in self._encoder_ids else 1.0
            for variable in variables
        )
        self.averages: list[keras.Variable] = []
        if self.average_momentum is not None:
            self.averages = self.add_optimizer_variables(variables, "weight_average")
            for average, variable in zip(self.averages, variables, strict=True):
                average.assign(variable)

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        return grads_and_vars  # they are the sum over the replicas already

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        rate = ops.cast(learning_rate, variable.dtype) * self._rate_factors[index]
        if self.decoupled_decay and len(variable.shape) > 1:
            self.assign_sub(variable, ops.multiply(variable, rate * self.decoupled_decay))
        super().update_step(gradient, variable, rate)
        if self.averages:
            average, done = self.averages[index], ops.cast(self.iterations, variable.dtype)
            momentum = ops.minimum((1.0 + done) / (10.0 + done), self.average_momentum)
            moved = ops.multiply(ops.subtract(variable, average), 1.0 - momentum)
            self.assign_add(average, moved)


@contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Within it `model` has the averages that its optimiser keeps, if it keeps any."""
    optimizer: UpdateRules = model.optimizer
    if not optimizer.averages:
        yield
        return
    swap_averages(model)
    try:
        yield
    finally:
        swap_averages(model)


def swap_averages(model: keras.Model) -> None:
    """Exchange the trained weights of `model` with the averages that its optimiser keeps, in place.

    Moving statistics of batch normalisation have no average of this kind (they are averages
    already) and stay.
    """
    optimizer: UpdateRules = model.optimizer
    for variable, average in zip(model.trainable_variables, optimizer.averages, strict=True):
        value = ops.convert_to_numpy(variable)
        variable.assign(average)
        average.assign(value)


class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Linear rise over `steps` updates to `after(0)`, then `after`, counted from there.

    Update `s` of the rise has (s + 1) / (steps + 1) of the peak, so none is trained at 0.
    """

    def __init__(self, after: keras.optimizers.schedules.LearningRateSchedule, steps: int) -> None:
        super().__init__()
        self.after = after
        self.steps = steps

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        rise = ops.minimum((step + 1.0) / (self.steps + 1.0), 1.0)
        return rise * self.after(ops.maximum(step - self.steps, 0.0))

    def get_config(self) -> dict[str, Any]:
        schedules = keras.optimizers.schedules
        return {"after": schedules.serialize(self.after), "steps": self.steps}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "WarmUp":
        after = keras.optimizers.schedules.deserialize(config["after"])
        return cls(after, config["steps"])


def warmup_epochs(settings: OptimizerSettings, epochs: int) -> int:
    """Warm-up epochs of a run: as configured, but at most half of the run."""
    return min(settings.warmup_epochs, epochs // 2)


def learning_rate_schedule(
    settings: OptimizerSettings, epochs: int, updates_per_epoch: int
) -> keras.optimizers.schedules.LearningRateSchedule | float:
    """The schedule of `settings`; a plain number where callbacks set it: of `plateau`, and of
    `constant` without a warm-up.

    It reaches its end with the last update.
    """
    schedules, peak = keras.optimizers.schedules, settings.learning_rate
    warmup = warmup_epochs(settings, epochs) * updates_per_epoch
    left = max(epochs * updates_per_epoch - warmup, 1)
    if settings.schedule == "constant" and not warmup:
        return peak  # a variable that callbacks of the user may set
    match settings.schedule:
        case "plateau":
            return peak
        case "constant":
            after = schedules.PiecewiseConstantDecay([left], [peak, peak])
        case "step":
            # The last update of an epoch still has the rate that the epoch began with.
            ends = [epoch * updates_per_epoch - warmup - 1 for epoch in settings.step_epochs or ()]
            values = [peak * settings.step_factor**i for i in range(len(ends) + 1)]
            after = schedules.PiecewiseConstantDecay([float(end) for end in ends], values)
        case "polynomial":
            lowest = peak * settings.final_fraction
            after = schedules.PolynomialDecay(peak, left, lowest, power=settings.power)
        case "cosine":
            after = schedules.CosineDecay(peak, left, alpha=settings.final_fraction)
        case "cosine_restarts":
            after = schedules.CosineDecayRestarts(
                peak,
                (settings.restart_epochs or 1) * updates_per_epoch,
                t_mul=settings.restart_growth,
                m_mul=settings.restart_decay,
                alpha=settings.final_fraction,
            )
    return WarmUp(after, warmup)


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
