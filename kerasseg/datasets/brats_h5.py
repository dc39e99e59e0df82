"""Kaggle's BraTS2020 HDF5 slices: `volume_<id>_slice_<s>.h5` with `image` and `mask`."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from kerasseg import anatomy
from kerasseg.config.data import DataSettings
from kerasseg.config.layouts import SLICES
from kerasseg.datasets.case import BrokenSource, Case, CaseSource, air_value, lps_grid
from kerasseg.datasets.folders import files_below, ranges
from kerasseg.errors import UserError

_NAME = re.compile(r"^volume_(?P<volume>\d+)_slice_(?P<slice>\d+)\.h5$", re.IGNORECASE)


@dataclass(frozen=True)
class BratsH5Source:
    """One volume; `files` are its slices in numeric order.

    Without `mask_channels` no mask is read.
    """

    case_id: str
    patient_id: str
    files: tuple[Path, ...]
    modalities: tuple[str, ...]
    image_channels: tuple[str, ...]
    mask_channels: tuple[str, ...]

    def load(self) -> Case:
        order = [self.image_channels.index(m) for m in self.modalities]
        image: np.ndarray | None = None
        label: np.ndarray | None = None
        without, unusual = [], 0
        for index, path in enumerate(self.files):
            scan, mask = _read_slice(path, len(self.image_channels), len(self.mask_channels))
            # A slice is stored as (x, y); ours is (height = y, width = x).
            width, height = scan.shape[:2]
            if image is None:
                image = np.zeros((len(self.files), height, width, len(order)), np.float32)
                label = np.zeros(image.shape[:3], np.uint8)
            assert label is not None
            if (height, width) != image.shape[1:3]:
                raise UserError(
                    f"{path}: {(height, width)} pixels, but {self.files[0].name} has "
                    f"{image.shape[1:3]} (height, width): the slices are not of one volume."
                )
            unusual += not _zero_background(scan[..., order], image[index])
            if mask is None:
                without.append(path)
            elif mask.any():
                label[index] = _labels(mask, self.mask_channels, path).T
        assert image is not None  # discover() yields no volume without slices
        if without and len(without) < len(self.files):
            raise UserError(
                f"{without[0]}: no dataset 'mask', while other slices of {self.case_id} have one: "
                "restore the file."
            )
        grid = lps_grid((image.shape[2], image.shape[1], image.shape[0]))
        return Case(
            case_id=self.case_id,
            patient_id=self.patient_id,
            image=image,
            label=None if without else label,
            spacing=grid.spacing,
            affine=grid.our_affine,
            modalities=self.modalities,
            grid=grid,
            intensities=SLICES,
            notes=[f"{unusual} slice(s) without air around the brain"] if unusual else [],
        )


def discover(settings: DataSettings) -> list[CaseSource]:
    """Find every volume below `data.root`. One that lacks slices or has one twice is broken."""
    assert settings.root is not None  # checked when the config is read
    below = files_below(settings.root)
    return volumes_among((folder / name for folder, names in below for name in names), settings)


def volumes_among(
    paths: Iterable[Path], settings: DataSettings, *, masks: bool = True
) -> list[CaseSource]:
    """Find every volume whose slices are among `paths`; other files are passed over.

    Without `masks` only the images are read.
    """
    volumes: dict[int, dict[int, list[Path]]] = {}
    for path in paths:
        match = _NAME.match(path.name)
        if match:
            slices = volumes.setdefault(int(match["volume"]), {})
            slices.setdefault(int(match["slice"]), []).append(path)
    return [_source(volume, slices, settings, masks) for volume, slices in volumes.items()]


def _source(
    volume: int, slices: dict[int, list[Path]], settings: DataSettings, masks: bool
) -> CaseSource:
    name = f"volume_{volume}"
    every = tuple(path for _, paths in sorted(slices.items()) for path in paths)
    folder = every[0].parent
    doubled = [paths for paths in slices.values() if len(paths) > 1]
    if doubled:
        reason = f"{doubled[0][1]} and {doubled[0][0]} are the same slice: keep one."
        return BrokenSource(name, name, every, reason)
    expected = set(range(settings.h5_slices))
    missing, surplus = expected - set(slices), set(slices) - expected
    if missing or surplus:
        lacks = f"lacks slice(s) {ranges(missing)}" if missing else ""
        has = f"has unexpected slice(s) {ranges(surplus)}" if surplus else ""
        wrong = " and ".join(filter(None, [lacks, has]))
        reason = (
            f"{folder}: {name} {wrong} of 0-{settings.h5_slices - 1}: restore the file(s), remove "
            "the volume, or set data.h5_slices if your volumes differ."
        )
        return BrokenSource(name, name, every, reason)
    return BratsH5Source(
        case_id=name,
        patient_id=name,
        files=every,
        modalities=settings.modalities,
        image_channels=settings.h5_image_channels,
        mask_channels=settings.h5_mask_channels if masks else (),
    )


def _read_slice(path: Path, channels: int, classes: int) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        with h5py.File(path, "r") as file:
            names = sorted(file)
            wanted = ("image", "mask") if classes else ("image",)
            found = {n: file[n][()] for n in wanted if isinstance(file.get(n), h5py.Dataset)}
    except PermissionError:
        raise UserError(f"{path}: no permission to read this file: change it.") from None
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{path}: cannot be read as HDF5 ({error}): the file is damaged or truncated; copy or "
            "download it again."
        ) from None
    image, mask = found.get("image"), found.get("mask")
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


def _zero_background(scan: np.ndarray, out: np.ndarray) -> bool:
    """Undo the shift of a per-slice z-score (x, y, C), so that air is exactly 0 again.

    The files hold (raw - mean) / std over the whole slice: air, raw 0, became one negative
    constant, the one around the brain. Subtracting it leaves raw / std of the slice. A channel
    without such a constant has no air to go by: it is left as it is, and False returned. Writes
    (y, x, C) float32 into `out`.
    """
    air = [air_value(scan[..., channel]) for channel in range(scan.shape[-1])]
    shift = np.array([value or 0 for value in air], scan.dtype)
    np.copyto(out, (scan - shift).transpose(1, 0, 2), casting="same_kind")
    return None not in air


def _labels(mask: np.ndarray, names: tuple[str, ...], path: Path) -> np.ndarray:
    """Turn channels (x, y, K) of 0 and 1 into canonical ids (x, y) uint8."""
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
