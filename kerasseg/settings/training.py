"""Section `training`: the fit."""

from typing import Literal

from kerasseg.settings.base import Section, setting


class TrainingSettings(Section):
    """The fit."""

    epochs: int = setting(50, "Epochs.", unit="epochs", ge=1, le=100_000)
    batch_size: int = setting(2, "Patches per step.", ge=1, le=4096)
    gradient_accumulation: int = setting(
        2, "Batches whose gradients are averaged before one update.", ge=1, le=1024
    )
    steps_per_epoch: int | None = setting(
        None,
        "Batches per epoch. Default: pipeline.patches_per_volume patches of every training case.",
        ge=1,
        le=10_000_000,
    )
    precision: Literal["auto", "float32", "mixed_float16"] = setting(
        "auto",
        "auto: mixed_float16 on a GPU with tensor cores (compute capability 7.0 or more), "
        "float32 elsewhere.",
    )
    early_stopping_patience: int | None = setting(
        20,
        "Epochs without a better validation Dice before the run stops; null: never.",
        unit="epochs",
        ge=1,
    )
    freeze_encoder_epochs: int = setting(
        0,
        "Epochs at the start in which the encoder is not trained; then it is, at "
        "optimizer.encoder_factor of the learning rate.",
        unit="epochs",
        ge=0,
    )
