"""Sections `records` and `split`: the store, and who trains on which part of it."""

from typing import Literal

from pydantic import model_validator

from kerasseg.settings.base import Folder, Section, setting


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


class SplitSettings(Section):
    """Who trains, who validates, who tests: always whole patients."""

    method: Literal["ratio", "kfold", "file"] = setting(
        "ratio",
        "ratio: shares of the patients. kfold: split.folds parts, of which number split.fold "
        "validates and the others train. file: as split.file says.",
    )
    validation: float = setting(
        0.15,
        "ratio: share of the patients, at least one of them.",
        unit="fraction",
        gt=0.0,
        lt=1.0,
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
