"""The typed experiment: all sections of settings, and what they demand of each other."""

from pathlib import Path

from pydantic import model_validator

from kerasseg import anatomy
from kerasseg.config.augment import AugmentSettings, transforms_of
from kerasseg.config.base import Folder, Section, setting
from kerasseg.config.data import DataSettings
from kerasseg.config.evaluation import (
    PLANES,
    EvaluationSettings,
    MetricsSection,
    PostprocessingSettings,
    check_postprocessing,
)
from kerasseg.config.loss import DiceTerm, FocalTerm, LossTerm, background_warning, check_terms
from kerasseg.config.model import ModelSettings
from kerasseg.config.pipeline import PipelineSettings, RecordSettings, SliceSettings, SplitSettings
from kerasseg.config.training import OptimizerSettings, TrainingSettings
from kerasseg.slice_transforms import check_slice_transforms


class RunSettings(Section):
    """Section `run`: the name of the run, its folder and its seed."""

    name: str = setting(
        "experiment", "Name of the run and of its store.", pattern=r"^[\w][\w.-]*$", max_length=100
    )
    root: Folder = setting(Path("runs"), "Folder that holds the run folders.")
    seed: int = setting(0, "Seed of weights, sampling and shuffling.", ge=0, le=2**31 - 1)


class Experiment(Section):
    """One experiment: everything that changes its result."""

    run: RunSettings = RunSettings()
    data: DataSettings = DataSettings()
    records: RecordSettings = RecordSettings()
    split: SplitSettings = SplitSettings()
    pipeline: PipelineSettings = PipelineSettings()
    augment: AugmentSettings = AugmentSettings()
    model: ModelSettings = ModelSettings()
    loss: tuple[LossTerm, ...] = setting(
        (DiceTerm(dice=0.5), FocalTerm(focal=0.5)),
        "A weighted sum of terms, such as [{dice: 0.5}, {focal: 0.5, gamma: 2}].",
        min_length=1,
    )
    optimizer: OptimizerSettings = OptimizerSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    postprocessing: PostprocessingSettings = PostprocessingSettings()
    metrics: MetricsSection = MetricsSection()

    @model_validator(mode="after")
    def _check(self) -> "Experiment":
        self._check_target()
        check_terms(
            self.loss, self.model.target, self.pipeline.patch_size, self.model.deep_supervision
        )
        dimensions = self.model.dimensions
        if len(self.pipeline.patch_size) != dimensions:
            axes = "[height, width]" if dimensions == 2 else "[depth, height, width]"
            raise ValueError(
                f"pipeline.patch_size {list(self.pipeline.patch_size)} does not fit "
                f"model.dimensions={dimensions}, which needs {axes}"
            )
        if dimensions == 3 and self.augment.preset == "classic_2d":
            raise ValueError("augment.preset=classic_2d is for model.dimensions=2: use light")
        if dimensions == 3 and self.pipeline.slices != SliceSettings():
            raise ValueError("pipeline.slices is for model.dimensions=2, but it is 3")
        layout = f"data.layout={self.data.layout}"
        if self.data.facts.single_pictures and dimensions == 3:
            raise ValueError(f"{layout} holds single slices: set model.dimensions=2")
        if self.data.facts.single_pictures and self.pipeline.slices.axis != "axial":
            raise ValueError(f"{layout} has slices of one plane: axis must be axial")
        self._check_albumentations()
        self._check_class_shares()
        self._check_flips()
        self._check_rotations()
        check_postprocessing(self.postprocessing, self.model.target)
        self._check_axes_of_transforms()
        if self.model.network == "sam" and self.data.normalisation != "percentiles":
            raise ValueError(
                "model.network=sam takes values from 0 to 1: set data.normalisation=percentiles"
            )
        if self.model.sam.embedding_copies > 1 and not transforms_of(self.augment):
            raise ValueError(
                f"model.sam.embedding_copies={self.model.sam.embedding_copies}, but nothing is "
                "augmented, so that they would be equal: set augment.preset=light"
            )
        if self.model.sam.prompt != "none" and self.pipeline.slices.neighbours:
            raise ValueError(
                f"model.sam.prompt={self.model.sam.prompt} is of single slices: set "
                "pipeline.slices.neighbours=0"
            )
        # A pretrained encoder's stride of 32 would rule out slices of 240; it pads them itself.
        stride = self.model.stride
        bad = [size for size in self.pipeline.patch_size if size % stride]
        if bad and self.model.network == "unet":
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

    @model_validator(mode="after")
    def _follow_the_encoder(self) -> "Experiment":
        """Put numbers where settings of the encoder are null, so that a saved config has them."""
        own = self.model.network == "pretrained_unet" and self.model.init_from is None
        pretrained = own and self._encoder_has_weights
        for section, name, of_pretrained, of_others in (
            ("optimizer", "encoder_factor", 0.1, 1.0),
            ("training", "freeze_encoder_epochs", 3, 0),
        ):
            settings = getattr(self, section)
            if getattr(settings, name) is None:
                value = of_pretrained if pretrained else of_others
                object.__setattr__(self, section, settings.model_copy(update={name: value}))
        return self

    @property
    def _encoder_has_weights(self) -> bool:
        """True if the encoder does not start from random weights."""
        model, sam = self.model, self.model.sam
        of_sam = sam.weights != "none" and not sam.random_encoder
        given = {"sam": of_sam, "pretrained_unet": model.pretrained.weights != "none"}
        return bool(model.init_from or given.get(model.network))

    @property
    def warnings(self) -> list[str]:
        """Sentences about settings that are allowed, but hardly meant."""
        warnings = [*self.data.warnings, *self.split.warnings, *self.metrics.warnings]
        evaluation = self.evaluation
        everywhere = not (evaluation.brain_box or evaluation.air_is_background)
        if everywhere and self.data.skull_stripped:
            warnings.append(
                "evaluation.brain_box=false with air_is_background=false: the network decides in "
                "the air, too, but a record has the box around the brain alone, and that is what "
                "training and kerasseg evaluate RUN score. kerasseg predict and then kerasseg "
                "evaluate --pred score whole volumes."
            )
        if background := background_warning(self.loss, self.model.target):
            warnings.append(background)
        held = ["training.freeze_encoder_epochs"] if self.training.freeze_encoder_epochs else []
        held += ["optimizer.encoder_factor"] if self.optimizer.encoder_factor != 1 else []
        sam, which = self.model.sam, "of random weights"
        remedy = "give the encoder weights with model.init_from, model.pretrained or model.sam"
        frozen = self.model.network == "sam" and not (sam.trained_blocks or sam.lora_rank)
        if frozen:
            which, remedy = "that is frozen", "train a part of it with model.sam.trained_blocks"
        if held and (frozen or not self._encoder_has_weights):
            warnings.append(
                f"{' and '.join(held)} hold{'' if len(held) > 1 else 's'} back an encoder {which}: "
                f"leave {'them' if len(held) > 1 else 'it'} out, or {remedy}."
            )
        schedule = self.optimizer.schedule
        if schedule in ("constant", "step") and self.optimizer.is_changed("final_fraction"):
            warnings.append(
                f"optimizer.final_fraction has no effect with optimizer.schedule={schedule}: leave "
                "it out, or take another schedule."
            )
        falls, epochs = self.optimizer.step_epochs or (0,), self.training.epochs
        if 0 < epochs <= falls[-1]:
            warnings.append(
                f"optimizer.step_epochs {list(falls)} end with {falls[-1]}, but training.epochs is "
                f"{epochs}, so that the rate does not fall there: lower them, or train for longer."
            )
        return warnings

    def _check_albumentations(self) -> None:
        if not self.augment.albumentations:
            return
        if self.model.dimensions == 3:
            raise ValueError(
                "augment.albumentations is for model.dimensions=2: its transforms are of slices; "
                "use augment.transforms"
            )
        check_slice_transforms(
            self.augment.albumentations,
            self.pipeline.patch_size,
            len(self.data.modalities),
            1 + 2 * self.pipeline.slices.neighbours,
        )

    def _check_class_shares(self) -> None:
        known = anatomy.CLASSES[self.data.classes]
        unknown = [name for name in self.pipeline.class_shares or () if name not in known]
        if unknown:
            raise ValueError(
                f"pipeline.class_shares names {unknown[0]}, but the segmentations of "
                f"data.layout={self.data.layout} tell apart: {', '.join(known)}"
            )

    def _check_flips(self) -> None:
        flips, axis = self.evaluation.flips, self.pipeline.slices.axis
        across = {"axial": "depth", "coronal": "height", "sagittal": "width"}[axis]
        if self.model.dimensions == 2 and across in flips:
            raise ValueError(
                f"evaluation.flips {list(flips)} has {across}, but pipeline.slices.axis={axis} has "
                f"no {across} within its slices: leave it out"
            )

    def _check_rotations(self) -> None:
        sizes = self._patch_sizes()
        for plane in self.evaluation.rotations:
            axes = PLANES[plane]
            turned = [sizes.get(name) for name in axes]
            if None in turned:
                raise ValueError(
                    f"evaluation.rotations has {plane}, but slices of "
                    f"pipeline.slices.axis={self.pipeline.slices.axis} can only be turned in their "
                    "own plane: leave it out"
                )
            if turned[0] != turned[1]:
                raise ValueError(
                    f"evaluation.rotations has {plane}, the plane of {axes[0]} and {axes[1]}, but "
                    f"the patch has {sizes}: give both the same size in pipeline.patch_size, or "
                    "leave it out"
                )

    def _patch_sizes(self) -> dict[str, int]:
        """Return the patch's size along each of its axes, by the axis's name."""
        names = ["depth", "height", "width"]
        if self.model.dimensions == 2:
            del names[("axial", "coronal", "sagittal").index(self.pipeline.slices.axis)]
        return dict(zip(names, self.pipeline.patch_size, strict=True))

    def _check_axes_of_transforms(self) -> None:
        sizes = self._patch_sizes()
        for term in self.augment.transforms or ():
            mirrored = term.flip or term.ghosting
            if mirrored is not None and not set(mirrored.axes) & set(sizes):
                raise ValueError(
                    f"augment.transforms: axes {list(mirrored.axes)} of "
                    f"{'flip' if term.flip else 'ghosting'} do nothing in slices of "
                    f"pipeline.slices.axis={self.pipeline.slices.axis}, whose axes are "
                    f"{' and '.join(sizes)}: name one of them"
                )
            copied, modalities = term.channel_copy, self.data.modalities
            if copied is not None and copied.source >= len(modalities):
                raise ValueError(
                    f"augment.transforms: channel_copy has source {copied.source}, but "
                    f"data.modalities {list(modalities)} are 0 to {len(modalities) - 1}"
                )
            if term.rotate90 is None:
                continue
            turned = [sizes.get(name) for name in term.rotate90.axes]
            if None in turned or turned[0] != turned[1] or len(set(term.rotate90.axes)) < 2:
                plane = list(term.rotate90.axes)
                raise ValueError(
                    f"augment.transforms: rotate90 in the plane of {plane} needs two axes of "
                    f"the same size, but the patch has {sizes}: change pipeline.patch_size, or "
                    "give other axes"
                )

    def _check_target(self) -> None:
        softmax = anatomy.ACTIVATIONS[self.model.target] == "softmax"
        if softmax and self.evaluation.threshold != EvaluationSettings().threshold:
            raise ValueError(
                f"evaluation.threshold has no effect on model.target={self.model.target}, where "
                "the most probable channel counts: leave it out"
            )
        if self.data.classes == "tumour" and self.model.target != "binary":
            raise ValueError(
                f"model.target={self.model.target}, but the segmentations of "
                f"data.layout={self.data.layout} tell only tumour from healthy: set "
                "model.target=binary"
            )

    @property
    def input_channels(self) -> int:
        """Channels that the network sees: in 2.5-D the modalities of every neighbouring slice."""
        return len(self.data.modalities) * (1 + 2 * self.pipeline.slices.neighbours)

    @property
    def run_name(self) -> str:
        """`run.name`, followed by the fold if there are folds: each is a run of its own on one
        store."""
        return f"{self.run.name}_fold{self.split.fold}" if self.split.has_folds else self.run.name

    @property
    def store_root(self) -> Path:
        """Folder of the record store."""
        return self.records.root or Path("tfrecords") / self.run.name
