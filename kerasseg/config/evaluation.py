"""Sections `evaluation`, `metrics` and `postprocessing`: predicting and scoring whole volumes."""

from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from kerasseg import anatomy
from kerasseg.config.base import Section, check_unique, imported_entry, setting

PLANES: Final = MappingProxyType(
    {"axial": ("height", "width"), "coronal": ("depth", "width"), "sagittal": ("depth", "height")}
)
"""The two axes of each plane."""


class EvaluationSettings(Section):
    """Whole volumes through the sliding window."""

    overlap: float = setting(0.5, "Overlap of neighbouring windows.", unit="fraction", ge=0, lt=1)
    weighting: Literal["gaussian", "constant"] = setting(
        "gaussian", "How overlapping windows are averaged."
    )
    brain_box: bool = setting(
        True,
        "Lay windows only over the smallest box around the brain (everything but 0); all "
        "outside is background. false: over the whole volume.",
    )
    air_is_background: bool = setting(
        True,
        "Voxels where every modality is air are background, whatever the network predicts; "
        "without skull-stripping, those with the darkest value in every modality. false: the "
        "network decides.",
    )
    flips: tuple[Literal["depth", "height", "width"], ...] = setting(
        (),
        "Test-time augmentation: axes along which each window is also mirrored. It takes as "
        "many times as long as there are combinations, 4 for two axes.",
    )
    rotations: tuple[Literal["axial", "coronal", "sagittal"], ...] = setting(
        (),
        "Test-time augmentation: planes in which each window is also turned by quarters, "
        "combined with evaluation.flips. The patch must be as long as it is wide there.",
    )
    window_batch: int = setting(1, "Windows per forward pass.", ge=1, le=1024)
    device_memory: float = setting(
        2.0,
        "Probabilities up to this size are summed in the GPU's memory, larger ones in the "
        "computer's; 0: always in the computer's.",
        unit="GiB",
        ge=0,
        le=1024,
    )
    threshold: float = setting(
        0.5, "Probability from which on a voxel belongs to a channel.", gt=0.0, lt=1.0
    )
    overlays: int = setting(4, "Cases on each side of the split that are drawn.", ge=0, le=10_000)

    @model_validator(mode="after")
    def _check(self) -> "EvaluationSettings":
        check_unique("evaluation.flips", self.flips, "an axis")
        check_unique("evaluation.rotations", self.rotations, "a plane")
        return self


class MetricsSection(Section):
    """How whole cases are scored, and how sure the means are."""

    further: tuple[dict[str, dict[str, Any]], ...] = setting(
        (),
        "Additional metrics: functions of your own by their import paths, with their options, "
        "such as [{my_metrics.extent: {axis: 0}}] (docs/extending.md).",
    )

    tolerance: float = setting(
        1.0, "Distance within which two surfaces agree, for the surface Dice.", unit="mm", ge=0.0
    )
    empty: Literal["brats", "skip"] = setting(
        "brats",
        "If truth or prediction is empty. brats: overlap 1 and distance 0 if both are empty, "
        "otherwise overlap 0 and empty_distance. skip: the case does not count in that "
        "column.",
    )
    empty_distance: float = setting(
        anatomy.BRATS_DIAGONAL,
        "HD95 and ASSD if one of the two masks is empty; the diagonal of a BraTS volume.",
        unit="mm",
        ge=0.0,
    )
    lesions: Literal["GLI", "SSA", "PED", "MEN", "MET"] = setting(
        "GLI", "Challenge of BraTS 2023 whose rules the lesion-wise scores follow."
    )
    resamples: int = setting(
        2000,
        "Bootstrap resamples of the means' intervals, which are widened for few patients.",
        ge=100,
        le=1_000_000,
    )
    confidence: float = setting(
        0.95, "Confidence of the means' intervals.", unit="fraction", gt=0.0, lt=1.0
    )

    @property
    def warnings(self) -> list[str]:
        """Sentences about settings that have no effect."""
        if self.empty != "skip" or not self.is_changed("empty_distance"):
            return []
        return [
            "metrics.empty_distance has no effect with metrics.empty=skip, where such a case does "
            "not count."
        ]

    @field_validator("further", mode="before")
    @classmethod
    def _check_further(cls, entries: Any) -> Any:
        listed = entries if isinstance(entries, list | tuple) else [entries]
        names = [imported_entry("metrics.further", entry)[0].split(".")[-1] for entry in listed]
        if len(set(names)) < len(names):
            raise ValueError(f"metrics.further {names}: give each function a name of its own")
        return tuple(listed)


Channel = Literal["NCR", "ED", "ET", "WT", "TC", "tumour"]
Probability = Annotated[float, Field(gt=0.0, lt=1.0)]
Volume = Annotated[float, Field(ge=0.0, le=1e7)]


class PostprocessingSettings(Section):
    """Clean-up of masks, in the order of the settings. All off by default.

    Channels are those of `model.target`, the background excepted.
    """

    thresholds: dict[Channel, Probability] = setting(
        {},
        "Channel -> probability from which on a voxel belongs to it, instead of "
        "evaluation.threshold: {ET: 0.4}. Not with model.target=labels.",
    )
    minimum_volume: dict[Channel, Volume] = setting(
        {},
        "Channel -> volume below which a connected component is removed, such as {WT: 500}; "
        "voxels that touch at a corner are connected.",
        unit="mm^3",
    )
    keep_largest: tuple[Channel, ...] = setting(
        (), "Channels of which only the largest connected component is kept."
    )
    fill_holes: tuple[Channel, ...] = setting(
        (),
        "Channels whose enclosed holes are filled; of sub-regions only with voxels that belong to "
        "none.",
    )
    minimum_enhancing: float = setting(
        0.0,
        "If all enhancing tumour of a case is less than this, it becomes necrotic core (BraTS, "
        "where a voxel is 1 mm^3); 0: never.",
        unit="mm^3",
        ge=0.0,
        le=1e7,
    )

    @model_validator(mode="after")
    def _check(self) -> "PostprocessingSettings":
        check_unique("postprocessing.keep_largest", self.keep_largest, "a channel")
        check_unique("postprocessing.fill_holes", self.fill_holes, "a channel")
        return self

    @property
    def changes_nothing(self) -> bool:
        """True if masks stay as their thresholds make them."""
        return self == PostprocessingSettings(thresholds=self.thresholds)


def check_postprocessing(settings: PostprocessingSettings, target: str) -> None:
    """Raise `ValueError` for a setting that has no effect on masks of `target`."""
    known = anatomy.tumour_channels(target)
    for name in ("thresholds", "minimum_volume", "keep_largest", "fill_holes"):
        strange = [channel for channel in getattr(settings, name) if channel not in known]
        if strange:
            raise ValueError(
                f"postprocessing.{name} has {strange[0]}, but the channels of "
                f"model.target={target} are {', '.join(known)}"
            )
    if settings.thresholds and anatomy.ACTIVATIONS[target] == "softmax":
        raise ValueError(
            f"postprocessing.thresholds has no effect on model.target={target}, where the most "
            "probable channel counts: leave it out"
        )
    if settings.minimum_enhancing and "ET" not in known:
        raise ValueError(
            f"postprocessing.minimum_enhancing needs enhancing tumour, which model.target={target} "
            "does not tell apart: leave it out"
        )
