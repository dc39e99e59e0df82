"""Kaggle's BraTS2020 HDF5 slices: `volume_<id>_slice_<s>.h5` with `image` and `mask`."""

import re
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from kerasseg import anatomy
from kerasseg.settings.data import DataSettings
from kerasseg.datasets.case import Case, check_case
from kerasseg.datasets.folders import files_below
from kerasseg.errors import UserError

_NAME = re.compile(r"^volume_(?P<volume>\d+)_slice_(?P<slice>\d+)\.h5$", re.IGNORECASE)

_AFFINE = np.array([[0, 0, -1, 0], [0, -1, 0, 239], [1, 0, 0, 0], [0, 0, 0, 1]], float)
"""(d, h, w) -> RAS mm of every BraTS 2020 volume; the slices themselves carry no geometry."""


@dataclass(frozen=True)
class BratsH5Source:
    """One volume; `files` are its slices in numeric order."""

    case_id: str
    patient_id: str
    files: tuple[Path, ...]
    modalities: tuple[str, ...]
    image_channels: tuple[str, ...]
    mask_channels: tuple[str, ...]

    def load(self) -> Case:
        order = [self.image_channels.index(m) for m in self.modalities]
        images: list[np.ndarray] = []
        labels: list[np.ndarray | None] = []
        unusual = 0
        for path in self.files:
            image, mask = _read_slice(path, len(self.image_channels), len(self.mask_channels))
            if images and image.shape[:2] != images[0].shape[1::-1]:
                raise UserError(
                    f"{path}: {image.shape[1::-1]} pixels, but {self.files[0].name} has "
                    f"{images[0].shape[:2]} (height, width): the slices are not of one volume."
                )
            # A slice is stored as (x, y); ours is (height = y, width = x).
            scan, found_air = _zero_background(image[..., order])
            unusual += not found_air
            images.append(scan.transpose(1, 0, 2))
            labels.append(None if mask is None else _labels(mask, self.mask_channels, path).T)
        without = [p.name for p, label in zip(self.files, labels, strict=True) if label is None]
        if without and len(without) < len(labels):
            raise UserError(
                f"{self.files[0].parent / without[0]}: no dataset 'mask', while other slices of "
                f"{self.case_id} have one: restore the file."
            )
        return check_case(
            Case(
                case_id=self.case_id,
                patient_id=self.patient_id,
                image=np.stack(images).astype(np.float32),
                label=None if without else np.stack([m for m in labels if m is not None]),
                spacing=(1.0, 1.0, 1.0),
                affine=_AFFINE.copy(),
                modalities=self.modalities,
                notes=[f"{unusual} slice(s) without air in all four corners"] if unusual else [],
            )
        )


def discover(settings: DataSettings) -> list[BratsH5Source]:
    """Find every volume below `data.root`, sorted by number.

    Raises `UserError` that lists the slices a volume lacks (`data.h5_slices` are expected) or
    has twice.
    """
    assert settings.root is not None  # checked when the config is read
    volumes: dict[int, dict[int, Path]] = {}
    for folder, names in files_below(settings.root):
        for name in names:
            match = _NAME.match(name)
            if not match:
                continue
            slices = volumes.setdefault(int(match["volume"]), {})
            number = int(match["slice"])
            if number in slices:
                raise UserError(f"{folder / name} and {slices[number]} are the same slice.")
            slices[number] = folder / name
    for volume, slices in volumes.items():
        folder = next(iter(slices.values())).parent
        missing = sorted(set(range(settings.h5_slices)) - set(slices))
        if missing or len(slices) > settings.h5_slices:
            surplus = sorted(set(slices) - set(range(settings.h5_slices)))
            words = f"lacks slice(s) {_ranges(missing)}" if missing else ""
            words += " and " if missing and surplus else ""
            words += f"has unexpected slice(s) {_ranges(surplus)}" if surplus else ""
            raise UserError(
                f"{folder}: volume_{volume} {words} of 0-{settings.h5_slices - 1}: restore the "
                "file(s), remove the volume, or set data.h5_slices if your volumes differ."
            )
    return [
        BratsH5Source(
            case_id=f"volume_{volume}",
            patient_id=f"volume_{volume}",
            files=tuple(path for _, path in sorted(volumes[volume].items())),
            modalities=settings.modalities,
            image_channels=settings.h5_image_channels,
            mask_channels=settings.h5_mask_channels,
        )
        for volume in sorted(volumes)
    ]


def _read_slice(path: Path, channels: int, classes: int) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        with h5py.File(path, "r") as file:
            names = sorted(file)
            image, mask = (
                file[name][()] if isinstance(file.get(name), h5py.Dataset) else None
                for name in ("image", "mask")
            )
    except PermissionError:
        raise UserError(f"{path}: no permission to read this file: change it.") from None
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{path}: cannot be read as HDF5 ({error}): the file is damaged or truncated; copy or "
            "download it again."
        ) from None
    if image is None:
        raise UserError(
            f"{path}: no dataset 'image', found {names or 'nothing'}: expected 'image' "
            "(240, 240, 4) and 'mask' (240, 240, 3)."
        )
    if image.ndim != 3 or image.shape[-1] != channels:
        raise UserError(
            f"{path}: 'image' has shape {image.shape}, expected (x, y, {channels}) for "
            "data.h5_image_channels."
        )
    if mask is not None and mask.shape != (*image.shape[:2], classes):
        raise UserError(
            f"{path}: 'mask' has shape {mask.shape}, expected {(*image.shape[:2], classes)} for "
            "data.h5_mask_channels."
        )
    return image, mask


def _zero_background(image: np.ndarray) -> tuple[np.ndarray, bool]:
    """Undo the shift of a per-slice z-score, so that air is exactly 0 again.

    The files hold (raw - mean) / std over the whole slice: air, raw 0, became one negative
    constant, the one in the corners. Subtracting it leaves raw / std of the slice. Where the
    corners differ there is no air to go by: the slice is left as it is, and False returned.
    """
    corner = image[0, 0]
    corners = image[:: max(image.shape[0] - 1, 1), :: max(image.shape[1] - 1, 1)]
    found = bool((corners == corner).all())
    return (image - corner if found else image), found


def _labels(mask: np.ndarray, names: tuple[str, ...], path: Path) -> np.ndarray:
    """Channels of 0 and 1 -> canonical ids, (x, y) uint8."""
    if not np.isin(mask, (0, 1)).all():
        found = np.unique(mask[~np.isin(mask, (0, 1))])[:5]
        raise UserError(f"{path}: 'mask' must hold 0 and 1, found {found.tolist()}.")
    if (mask.sum(axis=-1) > 1).any():
        raise UserError(
            f"{path}: some pixels of 'mask' belong to several of {list(names)}: expected separate "
            "sub-regions; see data.h5_mask_channels."
        )
    label = np.zeros(mask.shape[:2], np.uint8)
    for channel, name in enumerate(names):
        label[mask[..., channel] == 1] = anatomy.SUBREGIONS[name]
    return label


def _ranges(numbers: list[int]) -> str:
    """[3, 4, 5, 9] -> '3-5, 9'."""
    parts: list[list[int]] = []
    for n in numbers:
        if parts and n == parts[-1][-1] + 1:
            parts[-1].append(n)
        else:
            parts.append([n])
    return ", ".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)
