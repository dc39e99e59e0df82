"""Section `postprocessing`: what is mended in the masks of a whole volume."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from kerasseg import anatomy
from kerasseg.settings.base import Section, setting

Channel = Literal["NCR", "ED", "ET", "WT", "TC", "tumour"]
Probability = Annotated[float, Field(gt=0.0, lt=1.0)]
Volume = Annotated[float, Field(ge=0.0, le=1e7)]


class PostprocessingSettings(Section):
    """Clean-up of masks, in the order of the settings. All off by default.

    Channels are those of `model.target`, the background excepted.
    """

    thresholds: dict[Channel, Probability] = setting(
        {},
        "Channel -> probability from which a voxel counts, instead of evaluation.threshold: "
        "{ET: 0.4}. Not with model.target=labels.",
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
        for name in ("keep_largest", "fill_holes"):
            channels = getattr(self, name)
            if len(set(channels)) < len(channels):
                raise ValueError(f"postprocessing.{name} {list(channels)} names a channel twice")
        return self

    @property
    def changes_nothing(self) -> bool:
        """Whether masks stay as their thresholds make them."""
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
