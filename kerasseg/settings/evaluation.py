"""Section `evaluation`: whole volumes through the sliding window."""

from types import MappingProxyType
from typing import Final, Literal

from pydantic import model_validator

from kerasseg.settings.base import Section, setting

PLANES: Final = MappingProxyType(
    {
        "axial": ("height", "width"),
        "coronal": ("depth", "width"),
        "sagittal": ("depth", "height"),
    }
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
        "Lay the windows over the smallest box around the brain (everything but 0) only; outside "
        "of it everything is background. false: over the whole volume.",
    )
    flips: tuple[Literal["depth", "height", "width"], ...] = setting(
        (),
        "Test-time augmentation: axes along which each window is mirrored, too. Probabilities are "
        "averaged over all combinations, of two axes 4, so it takes that many times as long.",
    )
    rotations: tuple[Literal["axial", "coronal", "sagittal"], ...] = setting(
        (),
        "Test-time augmentation: planes in which each window is turned by 90, 180 and 270 degrees, "
        "too, each of evaluation.flips as well. The patch must be as long as wide there.",
    )
    window_batch: int = setting(1, "Windows per forward pass.", ge=1, le=1024)
    device_memory: float = setting(
        2.0,
        "Probabilities of a volume up to this size are summed up in the memory of the GPU, larger "
        "ones in the computer's; 0: always there.",
        unit="GiB",
        ge=0,
        le=1024,
    )
    threshold: float = setting(0.5, "Probability from which a voxel counts.", gt=0.0, lt=1.0)
    overlays: int = setting(4, "Cases drawn per split.", ge=0, le=10_000)

    @model_validator(mode="after")
    def _check(self) -> "EvaluationSettings":
        for name, values in (("flips", self.flips), ("rotations", self.rotations)):
            if len(set(values)) < len(values):
                what = "an axis" if name == "flips" else "a plane"
                raise ValueError(f"evaluation.{name} {list(values)} names {what} twice")
        return self
