"""The typed experiment: every setting with its type, unit, default, limits and one line of words.

Reading it from YAML, with overrides and messages for people, is `config_file`'s.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from kerasseg import anatomy


def _canonical_modality(name: str) -> str:
    return anatomy.MODALITY_ALIASES.get(name.lower(), name.lower())


Modality = Annotated[str, Field(pattern=r"^[A-Za-z0-9]+$"), AfterValidator(_canonical_modality)]
Folder = Annotated[Path, AfterValidator(Path.expanduser)]
Voxels = Annotated[int, Field(ge=1, le=4096)]
Channels = Annotated[int, Field(ge=1, le=4096)]
Size3 = tuple[Voxels, Voxels, Voxels]


def setting(default: Any, description: str, *, unit: str | None = None, **limits: Any) -> Any:
    """A pydantic field that carries its description and, for the docs and the schema, its unit."""
    return Field(
        default,
        description=f"{description} [{unit}]" if unit else description,
        json_schema_extra={"unit": unit} if unit else None,
        **limits,
    )


class Section(BaseModel):
    """A group of settings; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RunSettings(Section):
    """What the run is called and where it is written."""

    name: str = setting(
        "experiment", "Name of the run and of its store.", pattern=r"^[\w][\w.-]*$", max_length=100
    )
    root: Folder = setting(Path("runs"), "Folder that holds the run folders.")
    seed: int = setting(0, "Seed of weights, sampling and shuffling.", ge=0, le=2**31 - 1)


class PhantomSettings(Section):
    """The synthetic data set."""

    cases: int = setting(24, "Number of phantoms.", ge=1, le=100_000)
    shape: tuple[
        Annotated[int, Field(ge=16, le=1024)],
        Annotated[int, Field(ge=16, le=1024)],
        Annotated[int, Field(ge=16, le=1024)],
    ] = setting((48, 64, 56), "Depth, height, width of every phantom.", unit="voxels")
    seed: int = setting(0, "Seed of the phantoms.", ge=0, le=2**31 - 1)


class DataSettings(Section):
    """Which scans, and how their files are laid out."""

    layout: Literal["phantom", "brats_nifti", "brats_h5"] = setting(
        "phantom",
        "phantom: generated. brats_nifti: BraTS 2020, 2021, 2023 and later as .nii or .nii.gz. "
        "brats_h5: Kaggle BraTS2020 slices volume_<id>_slice_<s>.h5.",
    )
    root: Folder | None = setting(None, "Folder of the raw scans (not used by phantom).")
    modalities: tuple[Modality, ...] = setting(
        anatomy.MODALITIES,
        "Channels in the order the model sees them; a subset reads only those.",
        min_length=1,
        max_length=16,
    )
    label_map: dict[int, Annotated[int, Field(ge=0, le=3)]] | None = setting(
        None,
        "The files' label ids -> 0 background, 1 NCR, 2 ED, 3 ET. "
        "Default: BraTS, where enhancing tumour is 4 (up to 2021) or 3 (2023). In BraTS 2024, 4 is "
        "a resection cavity: map it to 0 or 1 yourself.",
    )
    h5_image_channels: tuple[Modality, ...] = setting(
        anatomy.MODALITIES,
        "brats_h5: order of the channels in `image`. Public notebooks disagree on it: look at the "
        "figures (T1ce shows a bright rim, FLAIR bright edema) before you believe the default.",
        min_length=1,
        max_length=16,
    )
    h5_mask_channels: tuple[Literal["NCR", "ED", "ET"], ...] = setting(
        ("NCR", "ED", "ET"), "brats_h5: order of the channels in `mask`.", min_length=1
    )
    h5_slices: int = setting(
        anatomy.BRATS_SLICES, "brats_h5: slices that a whole volume has.", ge=1, le=4096
    )
    phantom: PhantomSettings = PhantomSettings()

    @model_validator(mode="after")
    def _check(self) -> "DataSettings":
        for key in ("modalities", "h5_image_channels", "h5_mask_channels"):
            names = getattr(self, key)
            if len(set(names)) != len(names):
                raise ValueError(f"data.{key} names a channel twice: {list(names)}")
        if self.layout != "phantom" and self.root is None:
            raise ValueError(
                f"data.layout={self.layout} needs the folder of the raw scans: set data.root"
            )
        missing = [m for m in self.modalities if m not in self.h5_image_channels]
        if self.layout == "brats_h5" and missing:
            raise ValueError(f"data.modalities {missing} are not among data.h5_image_channels")
        missing = [m for m in self.modalities if m not in anatomy.MODALITIES]
        if self.layout == "phantom" and missing:
            raise ValueError(
                f"data.modalities {missing} do not exist in a phantom, "
                f"which has {list(anatomy.MODALITIES)}"
            )
        return self


class RecordSettings(Section):
    """The TFRecord store."""

    root: Folder | None = setting(None, "Folder of the store. Default: tfrecords/<run.name>.")
    cases_per_shard: int = setting(8, "Cases in one TFRecord file.", ge=1, le=10_000)
    workers: int | None = setting(
        None, "Processes that convert. Default: one per core.", ge=1, le=256
    )
    foreground_voxels: int = setting(
        4096, "Voxel coordinates kept per class for tumour-centred patches.", ge=1, le=1_000_000
    )


class SplitSettings(Section):
    """Who trains, who validates, who tests: always whole patients."""

    validation: float = setting(
        0.15, "Share of the patients, at least one of them.", unit="fraction", gt=0.0, lt=1.0
    )
    test: float = setting(0.15, "Share of the patients.", unit="fraction", ge=0.0, lt=1.0)
    seed: int = setting(0, "Seed of the shuffle of patients.", ge=0, le=2**31 - 1)
    overfit_check: bool = setting(
        False,
        "Train and validate on the same cases, to see whether a network can learn at all. The "
        "report says so plainly.",
    )

    @model_validator(mode="after")
    def _check(self) -> "SplitSettings":
        if self.validation + self.test >= 1.0:
            raise ValueError(
                f"split.validation + split.test is {self.validation + self.test:g}, which leaves "
                "no patient to train on: keep the sum under 1"
            )
        return self


class PipelineSettings(Section):
    """How patches are drawn from the store."""

    patch_size: Size3 = setting((64, 160, 160), "Depth, height, width.", unit="voxels")
    tumour_share: float = setting(
        0.6,
        "Share of the patches centred on a tumour voxel (first a class that is present, then one "
        "of its voxels); the others lie anywhere.",
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
    """The 3-D U-Net (Cicek et al. 2016, arXiv:1606.06650, with instance norm and leaky ReLU)."""

    features: tuple[Channels, ...] = setting(
        (32, 64, 128, 256), "Channels of each encoder level.", min_length=1, max_length=8
    )
    bottleneck: int = setting(512, "Channels of the bottleneck.", ge=1, le=4096)
    negative_slope: float = setting(0.01, "Slope of the leaky ReLU.", ge=0.0, lt=1.0)


class DiceSettings(Section):
    """Soft Dice (Milletari et al. 2016, arXiv:1606.04797)."""

    weight: float = setting(0.5, "Weight of this term in the sum.", ge=0.0)
    class_weights: tuple[
        Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]
    ] = setting((1.5, 1.0, 2.0), "Weights of NCR, ED, ET in the mean over classes.")
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
        if self.dice.weight > 0 and sum(self.dice.class_weights) <= 0:
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

    @property
    def store_root(self) -> Path:
        """Folder of the record store."""
        return self.records.root or Path("tfrecords") / self.run.name
