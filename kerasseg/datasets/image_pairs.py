"""Pictures and masks of the same name, in two folders or in one."""

import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerasseg.datasets.case import Case
from kerasseg.datasets.folders import files_below
from kerasseg.datasets.grid import lps_grid
from kerasseg.datasets.pictures import SUFFIXES, as_channels, read_mask, read_picture
from kerasseg.datasets.source import BrokenSource, CaseSource
from kerasseg.errors import UserError
from kerasseg.settings.data import DataSettings


@dataclass(frozen=True)
class PairSource:
    """One picture and its mask: a case of depth 1."""

    case_id: str
    patient_id: str
    picture: Path
    mask: Path | None
    modalities: tuple[str, ...]
    threshold: int | None

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.picture, self.mask) if self.mask else (self.picture,)

    def load(self) -> Case:
        image = as_channels(read_picture(self.picture), self.modalities)[np.newaxis]
        height, width = image.shape[1:3]
        label = None
        if self.mask:
            mask = read_mask(self.mask, self.threshold)
            if mask.shape != (height, width):
                raise UserError(
                    f"{self.mask}: the mask has {mask.shape} pixels (height, width), its picture "
                    f"{self.picture.name} {(height, width)}: they must be of the same slice."
                )
            label = mask[np.newaxis].astype(np.uint8)
        grid = lps_grid((width, height, 1))
        return Case(
            case_id=self.case_id,
            patient_id=self.patient_id,
            image=image,
            label=label,
            spacing=grid.spacing,
            affine=grid.our_affine,
            modalities=self.modalities,
            grid=grid,
            classes="tumour",
        )


def discover(settings: DataSettings) -> list[CaseSource]:
    """Every picture below `data.pairs.images` with the mask of its name.

    A picture without a mask, a mask without a picture and a name that occurs twice are broken
    cases. Where there is no masks folder at all, the pictures are cases without a segmentation.
    """
    assert settings.root is not None  # checked when the config is read
    pairs = settings.pairs
    if not settings.root.exists():
        list(files_below(settings.root))  # says so
    pictures = _by_stem(settings.root / pairs.images, "data.pairs.images")
    masks_root = settings.root / pairs.masks
    masks = _by_stem(masks_root, "data.pairs.masks") if masks_root.exists() else {}
    if pairs.mask_suffix:
        pictures = {s: p for s, p in pictures.items() if not s.endswith(pairs.mask_suffix)}
        masks = {
            s.removesuffix(pairs.mask_suffix): p
            for s, p in masks.items()
            if s.endswith(pairs.mask_suffix)
        }
    return [
        _source(stem, pictures.get(stem, []), masks.get(stem, []), settings, unlabelled=not masks)
        for stem in sorted(pictures.keys() | masks.keys())
    ]


def _source(
    stem: str,
    pictures: list[Path],
    masks: list[Path],
    settings: DataSettings,
    *,
    unlabelled: bool,
) -> CaseSource:
    case_id = stem.replace("/", "_")
    files = (*pictures, *masks)
    reason = ""
    for paths in (pictures, masks):
        if len(paths) > 1:
            reason = f"{paths[0]} and {paths[1]} have the same name: keep one."
    if not pictures:
        reason = f"{masks[0]}: is a mask without a picture of that name in data.pairs.images."
    elif not masks and not unlabelled:
        suffix = settings.pairs.mask_suffix
        reason = (
            f"{pictures[0]}: has no mask {Path(stem).name}{suffix} in data.pairs.masks: add it, "
            "remove the picture, or set data.pairs.mask_suffix."
        )
    if reason:
        return BrokenSource(case_id, case_id, files, reason)
    return PairSource(
        case_id=case_id,
        patient_id=case_id,
        picture=pictures[0],
        mask=masks[0] if masks else None,
        modalities=settings.modalities,
        threshold=settings.pairs.threshold,
    )


def _by_stem(root: Path, setting: str) -> dict[str, list[Path]]:
    """Pictures below a folder by their path without suffix, in one Unicode form.

    macOS writes an accent as a letter of its own; the same name may come in both forms.
    """
    found: dict[str, list[Path]] = {}
    for folder, names in files_below(root, setting):
        for name in names:
            path = folder / name
            if path.suffix.lower() in SUFFIXES:
                stem = path.relative_to(root).with_suffix("").as_posix()
                found.setdefault(unicodedata.normalize("NFC", stem), []).append(path)
    return found
