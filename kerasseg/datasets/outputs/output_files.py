"""The files of one case's prediction."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kerasseg import anatomy


@dataclass(frozen=True)
class OutputFiles:
    """Where they lie in the output folder.

    picture: pictures come out as pictures: the mask as PNG, what is float32 as TIFF
    """

    folder: Path
    case_id: str
    picture: bool

    @property
    def label(self) -> Path:
        """The label map, written last: a case that has one is finished."""
        return self.folder / f"{self.case_id}{'.png' if self.picture else '.nii.gz'}"

    @property
    def overlay(self) -> Path:
        """The drawing."""
        return self.folder / "overlays" / f"{self.case_id}.png"

    def probabilities(self, target: str) -> list[Path]:
        """Of each channel."""
        return self._maps("probability", anatomy.TARGETS[target])

    def entropy(self, target: str) -> list[Path]:
        """Of a softmax target one, of a sigmoid target one of each channel."""
        softmax = anatomy.ACTIVATIONS[target] == "softmax"
        return self._maps("entropy", [""] if softmax else anatomy.TARGETS[target])

    def variance(self, target: str) -> list[Path]:
        """Of each channel."""
        return self._maps("variance", anatomy.TARGETS[target])

    def _maps(self, what: str, channels: Iterable[str]) -> list[Path]:
        suffix = ".tif" if self.picture else ".nii.gz"
        names = [f"{self.case_id}_{what}{'_' * bool(c)}{c}{suffix}" for c in channels]
        return [self.folder / name for name in names]
