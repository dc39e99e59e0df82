"""The typed experiment: every setting with its type, unit, default, limits and one line of words.

Reading it from YAML, with overrides and messages for people, is `config_file`'s.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from kerasseg import anatomy
from kerasseg.settings.base import Folder, Section, Voxels, setting
from kerasseg.settings.data import DataSettings
from kerasseg.settings.store import RecordSettings, SplitSettings

Channels = Annotated[int, Field(ge=1, le=4096)]


class RunSettings(Section):
    """What the run is called and where it is written."""

    name: str = setting(
        "experiment", "Name of the run and of its store.", pattern=r"^[\w][\w.-]*$", max_length=100
    )
    root: Folder = setting(Path("runs"), "Folder that holds the run folders.")
    seed: int = setting(0, "Seed of weights, sampling and shuffling.", ge=0, le=2**31 - 1)


class SliceSettings(Section):
    """How a 2-D network (model.dimensions: 2) draws slices from volumes."""

    axis: Literal["axial", "coronal", "sagittal"] = setting(
        "axial", "The plane of the slices. Pictures have axial slices only."
    )
    keep: Literal["all", "brain", "tumour"] = setting(
        "brain", "Which slices train: all, those with any brain, or those with tumour."
    )
    empty_share: float | None = setting(
        None,
        "Share of the training slices that have no tumour; null: as often as they occur.",
        unit="fraction",
        ge=0.0,
        le=1.0,
    )
    neighbours: int = setting(
        0,
        "Slices on each side that are given to the network as further channels (2.5-D).",
        unit="slices",
        ge=0,
        le=16,
    )

    @model_validator(mode="after")
    def _check(self) -> "SliceSettings":
        if self.keep == "tumour" and self.empty_share:
            raise ValueError(
                "pipeline.slices.keep=tumour leaves no empty slice, so empty_share must be null "
                "or 0"
            )
        return self


class PipelineSettings(Section):
    """How patches are drawn from the store."""

    patch_size: tuple[Voxels, ...] = setting(
        (64, 160, 160),
        "Depth, height, width; of a 2-D network height, width of the slice.",
        unit="voxels",
        min_length=2,
        max_length=3,
    )
    slices: SliceSettings = SliceSettings()
    tumour_share: float = setting(
        0.6,
        "Share of the patches centred on a tumour voxel (first a class that is present, then one "
        "of its voxels); the others lie anywhere. In 2-D: of the patches from slices with tumour.",
        unit="fraction",
        ge=0.0,
        le=1.0,
    )
    patches_per_volume: int = setting(
        2, "Patches taken each time a volume is decoded.", ge=1, le=256
    )
    validation_patches_per_volume: int = setting(
        2, "Fixed patches per validation case, looked at after each epoch.", ge=1, le=256
    )
    prefetch: int = setting(2, "Batches made ahead of the model.", unit="batches", ge=0, le=64)


class ModelSettings(Section):
    """The U-Net (Cicek et al. 2016, arXiv:1606.06650, with instance norm and leaky ReLU)."""

    dimensions: Literal[2, 3] = setting(3, "3: patches of volumes. 2: slices.")
    target: Literal["subregions", "binary"] = setting(
        "subregions",
        "What is predicted: subregions (NCR, ED, ET, one sigmoid each) or binary (whole tumour).",
    )
    features: tuple[Channels, ...] = setting(
        (32, 64, 128, 256), "Channels of each encoder level.", min_length=1, max_length=8
    )
    bottleneck: int = setting(512, "Channels of the bottleneck.", ge=1, le=4096)
    negative_slope: float = setting(0.01, "Slope of the leaky ReLU.", ge=0.0, lt=1.0)


class DiceSettings(Section):
    """Soft Dice (Milletari et al. 2016, arXiv:1606.04797)."""

    weight: float = setting(0.5, "Weight of this term in the sum.", ge=0.0)
    class_weights: tuple[Annotated[float, Field(ge=0)], ...] | None = setting(
        None,
        "Weights of the target's channels in the mean over classes. null: 1.5, 1, 2 for NCR, ED, "
        "ET, or 1 for the whole tumour.",
        min_length=1,
    )
    smooth: float = setting(1.0, "Added to numerator and denominator.", unit="voxels", gt=0.0)


class FocalSettings(Section):
    """Focal binary cross-entropy (Lin et al. 2017, arXiv:1708.02002)."""

    weight: float = setting(0.5, "Weight of this term in the sum.", ge=0.0)
    gamma: float = setting(2.0, "Focusing exponent; 0 is plain cross-entropy.", ge=0.0, le=10.0)


class LossSettings(Section):
    """A weighted sum of terms."""

    dice: DiceSettings = DiceSettings()
    focal: FocalSettings = FocalSettings()

    @model_validator(mode="after")
    def _check(self) -> "LossSettings":
        if self.dice.weight + self.focal.weight <= 0:
            raise ValueError("loss.dice.weight and loss.focal.weight are both 0: nothing to learn")
        weights = self.dice.class_weights
        if self.dice.weight > 0 and weights is not None and sum(weights) <= 0:
            raise ValueError("loss.dice.class_weights are all 0: give one class a weight")
        return self


class OptimizerSettings(Section):
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101), warm-up, then a cosine."""

    learning_rate: float = setting(2e-4, "Peak learning rate.", gt=0.0, le=10.0)
    warmup_epochs: int = setting(
        5,
        "Epochs of linear rise to the peak; in a short run at most half of training.epochs.",
        unit="epochs",
        ge=0,
    )
    final_fraction: float = setting(
        0.01, "Learning rate at the end, as a fraction of the peak.", ge=0.0, le=1.0
    )
    weight_decay: float = setting(
        0.01, "Decoupled weight decay; norms and biases are left out.", ge=0.0, le=1.0
    )


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


class EvaluationSettings(Section):
    """Whole volumes through the sliding window."""

    overlap: float = setting(0.5, "Overlap of neighbouring windows.", unit="fraction", ge=0, lt=1)
    weighting: Literal["gaussian", "constant"] = setting(
        "gaussian", "How overlapping windows are averaged."
    )
    window_batch: int = setting(1, "Windows per forward pass.", ge=1, le=1024)
    threshold: float = setting(0.5, "Probability from which a voxel counts.", gt=0.0, lt=1.0)
    overlays: int = setting(4, "Cases drawn per split.", ge=0, le=10_000)


class Experiment(Section):
    """One experiment: everything that changes its result."""

    run: RunSettings = RunSettings()
    data: DataSettings = DataSettings()
    records: RecordSettings = RecordSettings()
    split: SplitSettings = SplitSettings()
    pipeline: PipelineSettings = PipelineSettings()
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    @model_validator(mode="after")
    def _check(self) -> "Experiment":
        self._check_target()
        dimensions = self.model.dimensions
        if len(self.pipeline.patch_size) != dimensions:
            axes = "[height, width]" if dimensions == 2 else "[depth, height, width]"
            raise ValueError(
                f"pipeline.patch_size {list(self.pipeline.patch_size)} does not fit "
                f"model.dimensions={dimensions}, which needs {axes}"
            )
        if dimensions == 3 and self.pipeline.slices != SliceSettings():
            raise ValueError("pipeline.slices is for model.dimensions=2, but it is 3")
        if self.data.layout == "image_pairs" and dimensions == 3:
            raise ValueError("data.layout=image_pairs holds single slices: set model.dimensions=2")
        if self.data.layout == "image_pairs" and self.pipeline.slices.axis != "axial":
            raise ValueError("data.layout=image_pairs has slices of one plane: axis must be axial")
        stride = 2 ** len(self.model.features)
        bad = [size for size in self.pipeline.patch_size if size % stride]
        if bad:
            nearest = [max(stride, round(s / stride) * stride) for s in self.pipeline.patch_size]
            raise ValueError(
                f"pipeline.patch_size {list(self.pipeline.patch_size)} must be divisible by "
                f"{stride}, because {len(self.model.features)} levels in model.features halve it "
                f"that often; the nearest that works is {nearest}"
            )
        steps = self.training.steps_per_epoch
        accumulation = self.training.gradient_accumulation
        if steps is not None and steps % accumulation:
            raise ValueError(
                f"training.steps_per_epoch {steps} is not a multiple of "
                f"training.gradient_accumulation {accumulation}, so updates would straddle epochs; "
                f"use {-(-steps // accumulation) * accumulation}"
            )
        return self

    def _check_target(self) -> None:
        if self.data.classes == "tumour" and self.model.target != "binary":
            raise ValueError(
                f"model.target={self.model.target}, but the segmentations of "
                f"data.layout={self.data.layout} tell only tumour from healthy: set "
                "model.target=binary"
            )
        channels = anatomy.TARGETS[self.model.target]
        weights = self.loss.dice.class_weights
        if weights is not None and len(weights) != len(channels):
            raise ValueError(
                f"loss.dice.class_weights has {len(weights)} number(s), but "
                f"model.target={self.model.target} has {len(channels)} channel(s) "
                f"({', '.join(channels)}): give one each, or null"
            )

    @property
    def class_weights(self) -> tuple[float, ...]:
        """Weight of each of the target's channels in the Dice loss."""
        default = (1.5, 1.0, 2.0) if self.model.target == "subregions" else (1.0,)
        return self.loss.dice.class_weights or default

    @property
    def input_channels(self) -> int:
        """Channels that the network sees: the modalities, in 2.5-D of every neighbouring slice."""
        return len(self.data.modalities) * (1 + 2 * self.pipeline.slices.neighbours)

    @property
    def run_name(self) -> str:
        """`run.name`, with the fold where the data are cut into folds: they are runs of their own
        on one store."""
        folds = self.split.method == "kfold" or (self.split.method == "file" and self.split.fold)
        return f"{self.run.name}_fold{self.split.fold}" if folds else self.run.name

    @property
    def store_root(self) -> Path:
        """Folder of the record store."""
        return self.records.root or Path("tfrecords") / self.run.name
