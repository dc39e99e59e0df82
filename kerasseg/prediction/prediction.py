"""`Prediction`: the labels and probabilities of one scan, on the scan's own grid.

It needs no TensorFlow, so that a client of a server does not start it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from kerasseg import anatomy
from kerasseg.config.data import DataSettings
from kerasseg.datasets.case import Case, Grid, air_value, in_float32
from kerasseg.datasets.labels import own_label
from kerasseg.datasets.nifti import write_nifti
from kerasseg.datasets.resample import restore_label
from kerasseg.errors import UserError


def array_case(
    image: np.ndarray, spacing: Sequence[float], modalities: tuple[str, ...], name: str = "array"
) -> Case:
    """Make a case at the origin of raw intensities.

    Raises `UserError` if the axes, the channels, the values or the voxel size are not possible.

    Args:
        image: intensities (D, H, W, C), axes growing to superior, posterior, left. Air is 0.
        spacing: voxel size (D, H, W) in mm.
        modalities: names of the C channels.
        name: id of the case.
    """
    expected = (
        f"(depth, height, width, {len(modalities)}) with the channels {', '.join(modalities)}"
    )
    if image.ndim != 4:
        raise UserError(
            f"The array has shape {image.shape}, expected {expected}; a picture has a depth of 1."
        )
    if image.shape[-1] != len(modalities):
        raise UserError(
            f"The array has {image.shape[-1]} channel(s), shape {image.shape}, expected {expected}."
        )
    if 0 in image.shape or image.dtype.kind not in "iufb":
        raise UserError(f"The array, {image.dtype} of shape {image.shape}, holds no scan.")
    if len(spacing) != 3 or not all(0 < size < np.inf for size in spacing):
        raise UserError(
            f"spacing is {tuple(spacing)}, expected the voxel size (depth, height, width) in mm."
        )
    depth, height, width = image.shape[:3]
    d, h, w = in_float32(spacing)
    air = [air_value(image[..., c]) if depth > 1 else 0 for c in range(len(modalities))]
    grid = Grid((width, height, depth), np.diag([-w, -h, d, 1.0]))
    return Case(
        case_id=name,
        patient_id=name,
        image=image.astype(np.float32),
        label=None,
        spacing=(d, h, w),
        affine=grid.our_affine,
        modalities=modalities,
        grid=grid,
        notes=[
            f"the value around the head is {value:g} in {modality}, and was taken for tissue: air "
            "must be 0 in an array"
            for value, modality in zip(air, modalities, strict=True)
            if value
        ],
    )


@dataclass(frozen=True)
class Prediction:
    """A prediction on the grid of its scan; axes (D, H, W) grow to superior, posterior, left.

    Attributes:
        case: the scan, with the modalities that the model takes.
        target: what was predicted, a key of `anatomy.TARGETS`.
        label: canonical labels (D, H, W) uint8; for the target binary, 1 is tumour of any kind.
        probabilities: (D, H, W, K) float32, of the K `channels`.
        entropy: (D, H, W, 1 or K) float32 in bits, if it was asked for.
        variance: (D, H, W, K) float32 over runs or test-time augmentation, if there are several.
    """

    case: Case
    target: str
    label: np.ndarray
    probabilities: np.ndarray
    entropy: np.ndarray | None = None
    variance: np.ndarray | None = None

    @property
    def channels(self) -> tuple[str, ...]:
        """Return the names of the K channels."""
        return tuple(anatomy.TARGETS[self.target])

    @property
    def affine(self) -> np.ndarray:
        """Return the 4 x 4 matrix from indices (d, h, w, 1) to scanner RAS coordinates in mm."""
        return self.case.affine

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Return the voxel size (D, H, W) in mm."""
        return self.case.spacing

    def own_label(self, ids: Mapping[int, int] | None = None) -> np.ndarray:
        """Return the label with a data set's own ids (canonical -> own), in the smallest unsigned
        dtype that holds them."""
        return self.label if ids is None else own_label(self.label, ids)

    def save(self, path: Path | str, ids: Mapping[int, int] | None = None) -> None:
        """Write the label as NIfTI on the grid of the scan's file, (x, y, z).

        Args:
            path: the file, such as label.nii.gz.
            ids: canonical label -> the id that is written.

        Raises:
            UserError: the name does not end in .nii or .nii.gz, or the file cannot be written.
        """
        if not str(path).endswith((".nii", ".nii.gz")):
            raise UserError(
                f"{path}: a label is written as NIfTI: name a file that ends in .nii.gz or .nii."
            )
        label = restore_label(self.own_label(ids), self.affine, self.case.grid)
        write_nifti(Path(path), label, self.case.grid, "--output")


class CaseSegmenter(Protocol):
    """Anything that predicts raw cases: a `Model`, or a server's client."""

    @property
    def data(self) -> DataSettings:
        """Return its section `data`: the modalities it takes, and the ids of its data set."""

    @property
    def target(self) -> str:
        """Return what it predicts, a key of `anatomy.TARGETS`."""

    @property
    def members(self) -> int:
        """Return the number of predictions over which the variance is taken."""

    def segment(self, case: Case, *, uncertainty: bool = False) -> Prediction:
        """Predict a raw case. Raises `UserError` for one that it does not take."""
