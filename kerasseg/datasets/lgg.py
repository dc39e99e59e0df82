"""Kaggle's LGG: a folder per patient, `<patient>_<n>.tif` and `<patient>_<n>_mask.tif` in it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kerasseg import anatomy
from kerasseg.config.data import DataSettings
from kerasseg.config.layouts import LGG, PICTURE
from kerasseg.datasets.case import BrokenSource, Case, CaseSource, lps_grid
from kerasseg.datasets.folders import files_below, ranges
from kerasseg.datasets.pictures import read_mask_255, read_picture
from kerasseg.errors import UserError
from kerasseg.files import read_csv_rows

_NAME = re.compile(
    r"^(?P<case>.+)_(?P<slice>\d+)(?P<mask>_mask)?\.tiff?$", re.IGNORECASE | re.DOTALL
)
_PATIENT = re.compile(r"^TCGA_[A-Za-z0-9]{2}_[A-Za-z0-9]{4}")
"""The patient's name in data.csv; in the folder's name the date of the scan follows it."""
_Slices = dict[int, list[Path]]


@dataclass(frozen=True)
class LggSource:
    """One patient: slices in numeric order, and their masks, if there are any."""

    case_id: str
    patient_id: str
    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    modalities: tuple[str, ...]
    attributes: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def files(self) -> tuple[Path, ...]:
        return (*self.images, *self.masks)

    def load(self) -> Case:
        order = [LGG.index(m) for m in self.modalities]
        slices = [read_picture(path) for path in self.images]
        height, width = slices[0].shape[:2]
        for path, pixels in zip(self.images, slices, strict=True):
            if pixels.shape != (height, width, len(anatomy.MODALITIES) - 1):
                raise UserError(
                    f"{path}: has shape {pixels.shape} (height, width, channels), expected "
                    f"{(height, width, 3)} like {self.images[0].name}, with pre-contrast, FLAIR "
                    "and post-contrast as red, green and blue."
                )
        masks = [read_mask_255(path) for path in self.masks]
        for path, mask in zip(self.masks, masks, strict=True):
            if mask.shape != (height, width):
                raise UserError(
                    f"{path}: the mask has {mask.shape} pixels (height, width), its picture "
                    f"{(height, width)}: restore the original file."
                )
        grid = lps_grid((width, height, len(slices)))
        return Case(
            case_id=self.case_id,
            patient_id=self.patient_id,
            image=np.ascontiguousarray(np.stack(slices)[..., order], np.float32),
            label=np.stack(masks).astype(np.uint8) if masks else None,
            spacing=grid.spacing,
            affine=grid.our_affine,
            modalities=self.modalities,
            grid=grid,
            classes="tumour",
            intensities=PICTURE,
            attributes=dict(self.attributes),
        )


def discover(settings: DataSettings) -> list[CaseSource]:
    """Find every patient below `data.root`, with the row of data.csv where there is one.

    A patient whose slices are not numbered without a gap, or lack some of their masks, is broken.
    """
    assert settings.root is not None  # checked when the config is read
    paths: list[Path] = []
    attributes: dict[str, dict[str, str]] = {}
    for folder, names in files_below(settings.root):
        if "data.csv" in names:
            attributes |= _attributes(folder / "data.csv")
        paths += [folder / name for name in names]
    return patients_among(paths, settings, attributes)


def patients_among(
    paths: Iterable[Path],
    settings: DataSettings,
    attributes: dict[str, dict[str, str]],
    *,
    masks: bool = True,
) -> list[CaseSource]:
    """Find every patient whose slices are among `paths`; other files are passed over.

    attributes: patient -> what is known of the patient
    masks:      without it masks are passed over, too
    """
    pictures: dict[tuple[Path, str], _Slices] = {}
    truth: dict[tuple[Path, str], _Slices] = {}
    for path in paths:
        match = _NAME.match(path.name)
        if match and (masks or not match["mask"]):
            kind = truth if match["mask"] else pictures
            slices = kind.setdefault((path.parent, match["case"]), {})
            slices.setdefault(int(match["slice"]), []).append(path)
    return [
        _source(case_id, pictures.get(key, {}), truth.get(key, {}), settings, attributes)
        for key in sorted(pictures.keys() | truth.keys())
        for _, case_id in [key]
    ]


def _source(
    case_id: str,
    images: _Slices,
    masks: _Slices,
    settings: DataSettings,
    attributes: dict[str, dict[str, str]],
) -> CaseSource:
    match = _PATIENT.match(case_id)
    patient = match[0] if match else case_id
    every = [path for slices in (images, masks) for paths in slices.values() for path in paths]
    wrong = _wrong(images, masks)
    if wrong:
        reason = f"{every[0].parent}: {case_id} {wrong}: restore the files, or remove the patient."
        return BrokenSource(case_id, patient, tuple(every), reason)
    return LggSource(
        case_id=case_id,
        patient_id=patient,
        images=tuple(images[n][0] for n in sorted(images)),
        masks=tuple(masks[n][0] for n in sorted(masks)),
        modalities=settings.modalities,
        attributes=attributes.get(patient, {}),
    )


def _wrong(images: _Slices, masks: _Slices) -> str:
    """Say what is wrong with the slices of a patient; an empty text where they are in order."""
    for slices in (images, masks):
        for paths in slices.values():
            if len(paths) > 1:
                return f"has a slice twice, {paths[0].name} and {paths[1].name}"
    if not images:
        return f"has masks but no picture, such as {next(iter(masks.values()))[0].name}"
    gaps = set(range(min(images), max(images) + 1)) - set(images)
    if gaps:
        return f"lacks slice(s) {ranges(gaps)} of {min(images)}-{max(images)}"
    if masks and set(masks) - set(images):
        return f"has masks without a picture for slice(s) {ranges(set(masks) - set(images))}"
    if masks and set(images) - set(masks):
        return f"has pictures without a mask for slice(s) {ranges(set(images) - set(masks))}"
    return ""


def _attributes(path: Path) -> dict[str, dict[str, str]]:
    """Read data.csv: patient -> the cells of the row that are not empty."""
    return {
        row["Patient"]: {key: value for key, value in row.items() if key != "Patient" and value}
        for _, row in read_csv_rows(path, "data.root")
        if row.get("Patient")
    }
