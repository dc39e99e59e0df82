"""Sections `pipeline`, `records` and `split`: the store, who trains on it, and on which patches."""

import csv
from typing import Annotated, Literal

from pydantic import Field, model_validator

from kerasseg.config.base import Folder, Section, Voxels, setting

Share = Annotated[float, Field(ge=0, le=1)]


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
    class_shares: dict[Literal["NCR", "ED", "ET", "tumour"], Share] | None = setting(
        None,
        "In place of tumour_share: the share of the patches centred on each class, such as {NCR: "
        "0.3, ED: 0.1, ET: 0.3}; the others lie anywhere. In 2-D the voxel chooses the slice, too.",
        unit="fraction",
    )
    patches_per_volume: int = setting(
        2, "Patches taken each time a volume is decoded.", ge=1, le=256
    )
    validation_patches_per_volume: int = setting(
        2, "Fixed patches per validation case, which are scored after each epoch.", ge=1, le=256
    )
    cache: Literal["none", "memory", "disk"] = setting(
        "none",
        "none: records are read and decoded each time. memory: the decoded cases stay in memory, "
        "if they fit. disk: unpacked copies in cache_root, for a store that is compressed or slow.",
    )
    cache_root: Folder | None = setting(
        None, "Folder of the copies of cache=disk; null: STORE.cache, beside the store."
    )
    augment_on: Literal["host", "device"] = setting(
        "host",
        "host: on the processors that make the batches. device: on the device that trains, "
        "within its step, if the processors cannot keep up; warps, flips and Albumentations "
        "stay on the processors.",
    )
    prefetch: int = setting(2, "Batches made ahead of the model.", unit="batches", ge=0, le=64)

    @property
    def centred_share(self) -> float:
        """Share of the patches centred on tumour of any kind."""
        if self.class_shares is None:
            return self.tumour_share
        return sum(self.class_shares.values())

    @model_validator(mode="after")
    def _check(self) -> "PipelineSettings":
        self.check_only_for("pipeline", ["cache_root"], "cache", ["disk"])
        shares = self.class_shares
        if shares is None:
            return self
        if sum(shares.values()) > 1 + 1e-6:
            raise ValueError(
                f"pipeline.class_shares {shares} add up to {sum(shares.values()):.3g}: they are "
                "shares of all patches, so 1 at most"
            )
        if "tumour" in shares and len(shares) > 1:
            raise ValueError(
                f"pipeline.class_shares {shares}: tumour stands for all classes of data that do "
                "not tell them apart: name either it or sub-regions"
            )
        for name, given in (
            ("tumour_share", self.is_changed("tumour_share")),
            ("slices.empty_share", self.slices.empty_share is not None),
        ):
            if given:
                raise ValueError(
                    f"pipeline.class_shares and pipeline.{name} both say where patches lie: leave "
                    "one of them out"
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
    compression: Literal["none", "zlib"] = setting(
        "none", "zlib makes the store smaller and reading it slower (docs/store.md has numbers)."
    )
    on_damaged_record: Literal["stop", "skip"] = setting(
        "stop",
        "What training does with a record that is damaged on the disk. skip: every record is read "
        "before the first epoch, and the run goes on without the damaged cases, naming them.",
    )


_METHODS_OF_SETTINGS = {
    "validation": ("ratio",),
    "test": ("ratio", "kfold"),
    "folds": ("kfold",),
    "fold": ("kfold", "file"),
    "stratify": ("ratio", "kfold"),
    "seed": ("ratio", "kfold"),
}
"""Setting of section `split` -> the methods that look at it."""


class SplitSettings(Section):
    """Who trains, who validates, who tests: always whole patients."""

    method: Literal["ratio", "kfold", "file"] = setting(
        "ratio",
        "ratio: shares of the patients. kfold: split.folds parts; part number split.fold "
        "validates and the others train. file: as written in split.file.",
    )
    validation: float = setting(
        0.15, "ratio: share of the patients, at least one of them.", unit="fraction", gt=0.0, lt=1.0
    )
    test: float = setting(
        0.15,
        "ratio and kfold: share of the patients that neither train nor validate; the same ones in "
        "every fold.",
        unit="fraction",
        ge=0.0,
        lt=1.0,
    )
    folds: int = setting(5, "kfold: number of parts.", ge=2, le=100)
    fold: int = setting(
        0, "kfold, and file with a column fold: the part that validates, from 0.", ge=0, le=99
    )
    file: Folder | None = setting(
        None,
        "file: CSV with a column case_id or patient_id, and a column split (train, validation, "
        "test) or fold (0, 1, …, or test).",
    )
    stratify: Literal["none", "tumour_volume"] = setting(
        "none", "tumour_volume: every part gets small and large tumours alike."
    )
    seed: int = setting(0, "Seed of the shuffle of patients.", ge=0, le=2**31 - 1)
    overfit_check: bool = setting(
        False,
        "Train and validate on the same cases, to see whether a network can learn at all. The "
        "report says so plainly.",
    )

    @model_validator(mode="after")
    def _check(self) -> "SplitSettings":
        if self.method == "ratio" and self.validation + self.test >= 1.0:
            raise ValueError(
                f"split.validation + split.test is {self.validation + self.test:g}, which leaves "
                "no patient to train on: keep the sum under 1"
            )
        if self.method == "kfold" and self.fold >= self.folds:
            raise ValueError(
                f"split.fold {self.fold} does not exist: {self.folds} folds are numbered 0 to "
                f"{self.folds - 1}"
            )
        if (self.method == "file") != (self.file is not None):
            raise ValueError("split.method=file and split.file=CSV belong together: set both")
        return self

    @property
    def warnings(self) -> list[str]:
        """Sentences about settings that the method does not look at."""
        return [
            f"split.{name}={getattr(self, name)} has no effect with split.method={self.method}: it "
            f"is for split.method={' or '.join(methods)}."
            for name, methods in _METHODS_OF_SETTINGS.items()
            if self.method not in methods and self.is_changed(name)
        ]

    @property
    def has_folds(self) -> bool:
        """True if the patients are cut into folds, or `split.file` cannot be read."""
        if self.file is None:
            return self.method == "kfold"
        try:
            with self.file.open(newline="", encoding="utf-8-sig") as file:
                header = next(filter(any, csv.reader(file)), [])  # there may be empty rows above
        except (OSError, UnicodeDecodeError, csv.Error):
            return True
        return "split" not in [name.strip().lower() for name in header]
