"""AdamW with warm-up and cosine."""

import keras

from kerasseg.config import OptimizerSettings


def warmup_epochs(settings: OptimizerSettings, epochs: int) -> int:
    """Warm-up epochs of a run: as configured, but at most half of the run."""
    return min(settings.warmup_epochs, epochs // 2)


def learning_rate_schedule(
    settings: OptimizerSettings, epochs: int, steps_per_epoch: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Linear rise to the peak, then a cosine to `final_fraction` of it, per batch.

    With gradient accumulation Keras still counts batches, not updates, so the schedule is sized
    in batches and reaches its end with the last one.
    """
    warmup = warmup_epochs(settings, epochs) * steps_per_epoch
    peak = settings.learning_rate
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=peak / (warmup + 1) if warmup else peak,
        decay_steps=max(epochs * steps_per_epoch - warmup, 1),
        alpha=settings.final_fraction,
        warmup_target=peak if warmup else None,
        warmup_steps=warmup,
    )


def build_optimizer(
    settings: OptimizerSettings,
    epochs: int,
    steps_per_epoch: int,
    gradient_accumulation: int,
) -> keras.optimizers.Optimizer:
    """AdamW on the schedule; norms and biases do not decay.

    The gradients of `gradient_accumulation` batches are averaged before one update.
    """
    optimizer = keras.optimizers.AdamW(
        learning_rate=learning_rate_schedule(settings, epochs, steps_per_epoch),
        weight_decay=settings.weight_decay,
        gradient_accumulation_steps=gradient_accumulation if gradient_accumulation > 1 else None,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer
