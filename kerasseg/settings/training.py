"""Section `training`: the fit."""

import json
import re
from typing import Any, Literal

from pydantic import field_validator, model_validator

from kerasseg.settings.base import Section, setting

_DEVICES = r"^(auto|all|cpu|gpu:\d{1,3})$"


class TrainingSettings(Section):
    """The fit."""

    epochs: int = setting(50, "Epochs.", unit="epochs", ge=1, le=100_000)
    batch_size: int = setting(
        2, "Patches per batch, over all devices and machines together.", ge=1, le=4096
    )
    gradient_accumulation: int = setting(
        2, "Batches whose gradients are averaged before one update.", ge=1, le=1024
    )
    steps_per_epoch: int | None = setting(
        None,
        "Batches per epoch. Default: pipeline.patches_per_volume patches of every training case.",
        ge=1,
        le=10_000_000,
    )
    devices: str = setting(
        "auto",
        "auto and all: every GPU, without one the CPU. cpu; gpu:0, gpu:1, …: that one alone.",
        pattern=_DEVICES,
    )
    strategy: Literal["auto", "none", "mirrored", "multi_worker"] = setting(
        "auto",
        "auto: none on one device, mirrored on several, multi_worker when TF_CONFIG names several "
        "machines.",
    )
    precision: Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"] = setting(
        "auto",
        "auto: mixed_float16 on a GPU with tensor cores (compute capability 7.0 or more), "
        "float32 elsewhere.",
    )
    jit_compile: Literal["auto"] | bool = setting(
        "auto",
        "Compile the step with XLA. auto: on one GPU, unless deterministic.",
    )
    deterministic: bool = setting(
        False, "Run again, the same weights bit for bit, on the same kind of machine; slower."
    )
    early_stopping_patience: int | None = setting(
        20,
        "Epochs without a better smoothed validation Dice before the run stops; null: never.",
        unit="epochs",
        ge=1,
    )
    score_smoothing: float = setting(
        0.5,
        "Share of the earlier epochs in the smoothed validation Dice that the best checkpoint and "
        "early stopping go by; 0: that of the epoch alone.",
        unit="fraction",
        ge=0.0,
        le=0.99,
    )
    validate_volumes_every: int | None = setting(
        None,
        "Epochs from one validation on whole volumes to the next, besides that on patches; null: "
        "only when training is done.",
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
    callbacks: tuple[dict[str, dict[str, Any]], ...] = setting(
        (),
        "Further Keras callbacks by import path, with their arguments, such as "
        "[{keras.callbacks.CSVLogger: {filename: log.csv}}].",
    )

    @field_validator("devices", mode="before")
    @classmethod
    def _check_devices(cls, devices: Any) -> Any:
        if not isinstance(devices, str) or not re.fullmatch(_DEVICES, devices):
            raise ValueError(
                f"training.devices: found {json.dumps(devices)}, expected auto, all, cpu, or one "
                "GPU by its number from 0, such as gpu:0"
            )
        return devices

    @field_validator("callbacks", mode="before")
    @classmethod
    def _check_callbacks(cls, callbacks: Any) -> Any:
        is_list = isinstance(callbacks, list | tuple)
        wrong = [x for x in callbacks if not _is_callback(x)] if is_list else [callbacks]
        if wrong:
            raise ValueError(
                f"training.callbacks: found {json.dumps(wrong[0])}, expected a list "
                "in which each is one import path with its arguments, such as "
                "[{keras.callbacks.CSVLogger: {filename: log.csv}}, "
                "{keras.callbacks.TerminateOnNaN: {}}]"
            )
        return tuple(callbacks)

    @model_validator(mode="after")
    def _check(self) -> "TrainingSettings":
        if self.jit_compile is True and self.deterministic:
            raise ValueError(
                "training.jit_compile=true and deterministic=true exclude each other: XLA is off "
                "where operations must be deterministic; use jit_compile=auto"
            )
        if self.jit_compile is True and self.strategy in ("mirrored", "multi_worker"):
            raise ValueError(
                f"training.jit_compile=true does not work with strategy={self.strategy}: "
                "TensorFlow compiles no step of several devices; use jit_compile=auto"
            )
        return self


def _is_callback(entry: Any) -> bool:
    if not isinstance(entry, dict) or len(entry) != 1:
        return False
    ((path, arguments),) = entry.items()
    parts = path.split(".") if isinstance(path, str) else []
    named = len(parts) > 1 and all(part.isidentifier() for part in parts)
    return named and isinstance(arguments, dict)
