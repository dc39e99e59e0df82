"""Sections `training`, the fit, and `optimizer`, the optimiser and its schedule."""

import json
import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from kerasseg.config.base import Section, is_import_path, is_imported_entry, setting

Epochs = Annotated[int, Field(ge=1)]

_OPTIONS_OF_SCHEDULES = {
    "step": ("step_epochs", "step_factor"),
    "polynomial": ("power",),
    "cosine_restarts": ("restart_epochs", "restart_growth", "restart_decay"),
    "plateau": ("plateau_factor", "plateau_patience"),
}
_OPTIONS_OF_OPTIMIZERS: dict[str, tuple[str, ...]] = {
    "momentum": ("sgd",),
    "nesterov": ("sgd",),
    "beta_1": ("adam", "adamw", "lion"),
    "beta_2": ("adam", "adamw", "lion"),
}
_OPTIMIZERS = ("adamw", "adam", "sgd", "lion")


class OptimizerSettings(Section):
    """The optimiser and its schedule."""

    name: str = setting(
        "adamw",
        "adamw (Loshchilov and Hutter 2019, arXiv:1711.05101), adam, sgd with momentum, lion "
        "(Chen et al. 2023, arXiv:2302.06675), or any other Keras optimizer by its import path, "
        "such as keras.optimizers.Muon.",
    )
    options: dict[str, Any] = setting(
        {},
        "Arguments of an optimizer that is named by its import path, such as {momentum: 0.9}.",
    )
    learning_rate: float = setting(2e-4, "Peak learning rate.", gt=0.0, le=10.0)
    schedule: Literal["cosine", "constant", "step", "polynomial", "cosine_restarts", "plateau"] = (
        setting(
            "cosine",
            "How the learning rate falls after the warm-up. plateau: by plateau_factor when the "
            "validation Dice has not risen for plateau_patience epochs.",
        )
    )
    warmup_epochs: int = setting(
        lambda values: 0 if values.get("schedule") == "plateau" else 5,
        "Epochs of linear rise to the peak; in a short run at most half of training.epochs. "
        "Default: 5, of plateau 0.",
        unit="epochs",
        ge=0,
    )
    final_fraction: float = setting(
        0.01,
        "Lowest learning rate, as a fraction of the peak (not for constant and step).",
        ge=0.0,
        le=1.0,
    )
    step_epochs: tuple[Epochs, ...] | None = setting(
        None, "step: epochs after which the rate falls.", unit="epochs", min_length=1
    )
    step_factor: float = setting(
        0.1, "step: the learning rate is multiplied by this.", gt=0.0, lt=1.0
    )
    power: float = setting(
        0.9, "polynomial: exponent of the share of the run that is left.", gt=0.0, le=10.0
    )
    restart_epochs: int | None = setting(
        None, "cosine_restarts: length of the first cosine.", unit="epochs", ge=1
    )
    restart_growth: float = setting(
        2.0,
        "cosine_restarts: each cosine is this many times as long as the one before.",
        ge=1.0,
        le=10.0,
    )
    restart_decay: float = setting(
        1.0, "cosine_restarts: each peak is this fraction of the one before.", gt=0.0, le=1.0
    )
    plateau_factor: float = setting(
        0.5, "plateau: the learning rate is multiplied by this.", gt=0.0, lt=1.0
    )
    plateau_patience: int = setting(
        5, "plateau: epochs without a better validation Dice.", unit="epochs", ge=1
    )
    momentum: float = setting(0.99, "sgd.", ge=0.0, lt=1.0)
    nesterov: bool = setting(True, "sgd: Nesterov's momentum.")
    beta_1: float = setting(0.9, "adam, adamw and lion.", ge=0.0, lt=1.0)
    beta_2: float = setting(
        lambda values: 0.99 if values.get("name") == "lion" else 0.999,
        "The same. Default: 0.999, of lion 0.99.",
        ge=0.0,
        lt=1.0,
    )
    weight_decay: float = setting(
        lambda values: 0.0 if values.get("name") == "adam" else 0.01,
        "Decoupled weight decay, for every optimizer; norms and biases do not decay. Default: "
        "0.01, for adam 0.",
        ge=0.0,
        le=1.0,
    )
    clip_norm: float | None = setting(
        None, "Largest global norm of an update's gradient; null: no clipping.", gt=0.0
    )
    ema: float | None = setting(
        None,
        "Momentum, per update, of an exponential moving average of the weights, which is "
        "validated and saved; null: no average.",
        gt=0.0,
        lt=1.0,
    )
    encoder_factor: float | None = setting(
        None,
        "Learning rate of the encoder relative to the rest's (discriminative learning rates). "
        "null: 0.1 where model.pretrained gives it weights, else 1.",
        gt=0.0,
        le=1.0,
    )

    @field_validator("name", mode="before")
    @classmethod
    def _check_name(cls, name: Any) -> Any:
        if name == "muon":
            raise ValueError(
                "optimizer.name: kerasseg has no muon of its own any more: use Keras's, "
                "optimizer.name=keras.optimizers.Muon, which gives kernels of convolutions to AdamW"
            )
        if not is_import_path(name) and name not in _OPTIMIZERS:
            raise ValueError(
                f"optimizer.name: found {json.dumps(name)}, expected one of "
                f"{', '.join(_OPTIMIZERS)}, or a Keras optimizer by its import path, such as "
                "keras.optimizers.Muon"
            )
        return name

    @model_validator(mode="after")
    def _check(self) -> "OptimizerSettings":
        if self.options and self.name in _OPTIMIZERS:
            raise ValueError(
                "optimizer.options is for an optimizer that optimizer.name gives by its import "
                f"path, such as keras.optimizers.Muon, but it is {self.name}"
            )
        for schedule, options in _OPTIONS_OF_SCHEDULES.items():
            self.check_only_for("optimizer", options, "schedule", [schedule])
        falling = ("cosine", "polynomial", "cosine_restarts", "plateau")
        self.check_only_for("optimizer", ["final_fraction"], "schedule", falling)
        for option, names in _OPTIONS_OF_OPTIMIZERS.items():
            self.check_only_for("optimizer", [option], "name", names)
        if self.schedule == "step" and self.step_epochs is None:
            raise ValueError("optimizer.schedule=step needs optimizer.step_epochs, such as [30,40]")
        if self.schedule == "cosine_restarts" and self.restart_epochs is None:
            raise ValueError("optimizer.schedule=cosine_restarts needs optimizer.restart_epochs")
        if self.schedule == "plateau" and self.warmup_epochs:
            raise ValueError(
                "optimizer.schedule=plateau starts at the peak: set optimizer.warmup_epochs=0"
            )
        if self.step_epochs and list(self.step_epochs) != sorted(set(self.step_epochs)):
            raise ValueError("optimizer.step_epochs must rise")
        if self.step_epochs and self.step_epochs[0] < self.warmup_epochs:
            raise ValueError(
                f"optimizer.step_epochs begin with {self.step_epochs[0]}, inside the "
                f"{self.warmup_epochs} epochs of optimizer.warmup_epochs: begin later or shorten it"
            )
        if self.name == "lion" and self.beta_1 == 0:
            raise ValueError("optimizer.name=lion needs optimizer.beta_1 above 0")
        return self


_DEVICES = r"^(auto|all|cpu|gpu:\d{1,3})$"


class TrainingSettings(Section):
    """The fit."""

    epochs: int = setting(
        50,
        "Epochs. 0: nothing is trained, and the run holds the network as it begins, with "
        "pretrained weights or those of model.init_from.",
        unit="epochs",
        ge=0,
        le=100_000,
    )
    batch_size: int = setting(
        2, "Patches per batch, over all devices and machines together.", ge=1, le=4096
    )
    gradient_accumulation: int = setting(
        2, "Batches whose gradients are averaged before one update.", ge=1, le=1024
    )
    steps_per_epoch: int | None = setting(
        None,
        "Batches per epoch. Default: as many as hold pipeline.patches_per_volume patches of every "
        "training case, rounded up to whole updates.",
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
        "auto: no strategy on one device, mirrored on several, multi_worker if TF_CONFIG "
        "names several machines.",
    )
    precision: Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"] = setting(
        "auto",
        "auto: mixed_float16 on a GPU with tensor cores (compute capability 7.0 or more), "
        "float32 elsewhere.",
    )
    jit_compile: Literal["auto"] | bool = setting(
        "auto", "Compile the step with XLA. auto: on one GPU, unless deterministic."
    )
    deterministic: bool = setting(
        False,
        "A repeated run gives the same weights, bit for bit, on the same kind of machine; slower.",
    )
    early_stopping_patience: int | None = setting(
        20,
        "Epochs without a better smoothed validation Dice before the run stops; null: never.",
        unit="epochs",
        ge=1,
    )
    score_smoothing: float = setting(
        0.5,
        "Share of the earlier epochs in the smoothed validation Dice, which chooses the best "
        "checkpoint and decides on early stopping; 0: each epoch by itself.",
        unit="fraction",
        ge=0.0,
        le=0.99,
    )
    validate_volumes_every: int | None = setting(
        None,
        "Validate whole volumes, too, after every so many epochs; null: only at the end.",
        unit="epochs",
        ge=1,
    )
    histograms_every: int | None = setting(
        None,
        "Histograms of weights and gradients on TensorBoard after every so many epochs; null: "
        "none.",
        unit="epochs",
        ge=1,
    )
    freeze_encoder_epochs: int | None = setting(
        None,
        "Epochs at the start in which the encoder is not trained (then "
        "optimizer.encoder_factor counts). null: 3 if model.pretrained gives it weights, "
        "otherwise 0.",
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
        wrong = [x for x in callbacks if not is_imported_entry(x)] if is_list else [callbacks]
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
