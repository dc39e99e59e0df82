"""How the learning rate goes, per update."""

from typing import Any

import keras
from keras import ops

from kerasseg.settings.optimizer import OptimizerSettings


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
