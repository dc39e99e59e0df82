"""Section `pipeline`: how patches are drawn from the store."""

from typing import Literal

from pydantic import model_validator

from kerasseg.settings.base import Section, Voxels, setting


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
