"""The optimiser and the learning rate that a config asks for, and the averages of the weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops

from kerasseg.config.training import OptimizerSettings
from kerasseg.errors import UserError
from kerasseg.private_hooks import ReducedGradientsOptimizer
from kerasseg.training.user_classes import import_class, make_instance


def build_optimizer(
    settings: OptimizerSettings,
    epochs: int,
    updates_per_epoch: int,
    *,
    encoder: Sequence[keras.Variable] = (),
) -> "UpdateRules":
    """Make the optimiser on its schedule. To be called under the strategy's scope.

    Gradients are accumulated and clipped in `step.py`, before the optimiser sees them. Raises
    `UserError` if a class named by its import path cannot be imported or made.

    Args:
        updates_per_epoch: Updates of the weights in an epoch.
        encoder: Variables that are trained at `encoder_factor` of the learning rate.
    """
    betas = {"beta_1": settings.beta_1, "beta_2": settings.beta_2}
    kind: type
    options: dict[str, Any]
    match settings.name:
        case "adam" | "adamw":
            kind, options = Adam, betas
        case "sgd":
            momentum = {"momentum": settings.momentum, "nesterov": settings.nesterov}
            kind, options = keras.optimizers.SGD, momentum
        case "lion":
            kind, options = keras.optimizers.Lion, betas
        case path:
            kind, options = _import_optimizer(path, settings.options), settings.options
    with_rules: Any = type(kind.__name__, (UpdateRules, kind), {})
    optimizer: UpdateRules = with_rules(
        **options,
        learning_rate=learning_rate_schedule(settings, epochs, updates_per_epoch),
        weight_decay=settings.weight_decay,
        encoder=encoder,
        encoder_factor=settings.encoder_factor or 1.0,  # None outside of an experiment
        average_momentum=settings.ema,
    )
    return optimizer


def _import_optimizer(path: str, options: dict[str, Any]) -> type:
    """Import a Keras optimiser, and refuse `options` that it does not take or that are ours."""
    kind = import_class(
        "optimizer.name", path, keras.optimizers.Optimizer, "keras.optimizers.Optimizer"
    )
    for name in options:
        if name in _SETTINGS_OF_KERAS:
            raise UserError(
                f"optimizer.options: {name} is set by {_SETTINGS_OF_KERAS[name]}: leave it out."
            )
    make_instance("optimizer.options", path, kind, options)
    return kind


_SETTINGS_OF_KERAS = {
    "learning_rate": "optimizer.learning_rate",
    "weight_decay": "optimizer.weight_decay",
    "adam_weight_decay": "optimizer.weight_decay",  # of keras.optimizers.Muon
    "clipnorm": "optimizer.clip_norm",
    "clipvalue": "optimizer.clip_norm",
    "global_clipnorm": "optimizer.clip_norm",
    "use_ema": "optimizer.ema",
    "ema_momentum": "optimizer.ema",
    "ema_overwrite_frequency": "optimizer.ema",
    "loss_scale_factor": "training.precision",
    "gradient_accumulation_steps": "training.gradient_accumulation",
}
"""Arguments of every Keras optimiser whose rules are ours here -> the setting that has them."""


class UpdateRules(ReducedGradientsOptimizer):
    """Rules around the update of any Keras optimiser: `class AdamW(UpdateRules, Adam)`.

    Keras's own `weight_decay` knows one rate for all variables, and its `use_ema` averages on each
    replica. Gradients come averaged over batches and replicas, and clipped, from `step.py`.
    Variables without a gradient (of frozen layers) are left alone by all rules.

    Args:
        weight_decay: Decoupled (Loshchilov and Hutter 2019, arXiv:1711.05101): a kernel loses
            rate * weight_decay of itself before its update. Variables of one axis, which are the
            biases and the gamma and beta of every norm, do not decay.
        encoder: Variables whose rate, and so whose decay, is `encoder_factor` of the others'.
        average_momentum: Momentum of an exponential moving average of the weights; None for no
            average. It counts updates, not batches, and rises as (1 + t) / (10 + t) at the start,
            so that the random weights of the beginning are soon forgotten.
        **arguments: Arguments of the Keras optimiser.
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

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self.variable_index(variable)
        rate = ops.cast(learning_rate, variable.dtype) * self._rate_factors[index]
        if self.decoupled_decay and len(variable.shape) > 1:
            self.assign_sub(variable, ops.multiply(variable, rate * self.decoupled_decay))
        super().update_step(gradient, variable, rate)
        if self.averages:
            average, done = self.averages[index], ops.cast(self.iterations, variable.dtype)
            momentum = ops.minimum((1.0 + done) / (10.0 + done), self.average_momentum)
            moved = ops.multiply(ops.subtract(variable, average), 1.0 - momentum)
            self.assign_add(average, moved)


class Adam(ReducedGradientsOptimizer):
    """Adam (Kingma and Ba 2015, arXiv:1412.6980); with weight decay AdamW.

    Keras's corrects the bias of all moments by the number of updates of the run. Variables that
    are released later, as a frozen encoder's are, would get none, and so take steps of up to six
    times the learning rate for their first hundred updates. For all others the two are the same.
    """

    def __init__(
        self, *, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7, **arguments: Any
    ) -> None:
        super().__init__(**arguments)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self.means, self.squares, self.updates = [], [], []
        for variable in variables:
            self.means.append(self.add_variable_from_reference(variable, "mean"))
            self.squares.append(self.add_variable_from_reference(variable, "square"))
            self.updates.append(self.add_variable((), name="updates"))

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self.variable_index(variable)
        mean, square, updates = self.means[index], self.squares[index], self.updates[index]
        rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        self.assign_add(updates, 1.0)
        done = ops.cast(updates, variable.dtype)
        self.assign_add(mean, ops.multiply(ops.subtract(gradient, mean), 1.0 - self.beta_1))
        self.assign_add(
            square, ops.multiply(ops.subtract(ops.square(gradient), square), 1.0 - self.beta_2)
        )
        rate *= ops.sqrt(1.0 - ops.power(self.beta_2, done))
        rate /= 1.0 - ops.power(self.beta_1, done)
        self.assign_sub(
            variable, ops.divide(ops.multiply(mean, rate), ops.sqrt(square) + self.epsilon)
        )


class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """A linear rise over `steps` updates to `after(0)`, then `after`, counted from there.

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


def warmup_epochs(settings: OptimizerSettings, epochs: int) -> int:
    """Return the warm-up epochs of a run: those of the settings, but at most half of the run."""
    return min(settings.warmup_epochs, epochs // 2)


def learning_rate_schedule(
    settings: OptimizerSettings, epochs: int, updates_per_epoch: int
) -> keras.optimizers.schedules.LearningRateSchedule | float:
    """Return the schedule of the learning rate, which reaches its end with the last update.

    It is a plain number where callbacks set it: for `plateau`, and for `constant` without a
    warm-up.
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


@contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Give `model` the averages that its optimiser keeps, if it keeps any, within the context."""
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
    """Exchange the trained weights of `model` with the averages that its optimiser keeps.

    Moving statistics of batch normalisation are averages already and stay.
    """
    optimizer: UpdateRules = model.optimizer
    for variable, average in zip(model.trainable_variables, optimizer.averages, strict=True):
        value = ops.convert_to_numpy(variable)
        variable.assign(average)
        average.assign(value)
