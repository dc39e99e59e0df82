"""BraTS as NIfTI: `<case>_flair.nii.gz` up to 2021, `<case>-t2f.nii.gz` from 2023 on."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerasseg import anatomy
from kerasseg.config import DataSettings
from kerasseg.datasets.case import Case, check_case
from kerasseg.datasets.folders import files_below
from kerasseg.datasets.labels import canonical_labels
from kerasseg.datasets.nifti import read_nifti, spacing_of
from kerasseg.errors import UserError

_NAME = re.compile(r"^(?P<case>.+)[_-](?P<kind>[A-Za-z0-9]+)\.nii(\.gz)?$", re.IGNORECASE)
_TIME_POINT = re.compile(r"^(?P<patient>BraTS-[A-Za-z]+-\d+)-\d{3}$")
_AFFINE_TOLERANCE_MM = 0.05
"""Of the corner that moves most; headers round their numbers differently."""


@dataclass(frozen=True)
class BratsNiftiSource:
    """One case folder. `images` are the requested modalities in order."""

    case_id: str
    patient_id: str
    images: tuple[tuple[str, Path], ...]
    segmentation: Path | None
    label_map: tuple[tuple[int, int], ...]

    @property
    def files(self) -> tuple[Path, ...]:
        paths = tuple(path for _, path in self.images)
        return (*paths, self.segmentation) if self.segmentation else paths

    def load(self) -> Case:
        arrays = []
        first: tuple[Path, tuple[int, ...], np.ndarray] | None = None
        for _, path in self.images:
            array, affine = read_nifti(path)
            first = first or (path, array.shape, affine)
            _check_same_grid(path, array.shape, affine, *first)
            arrays.append(array)
        assert first is not None  # discover() yields no source without images
        label = None
        if self.segmentation:
            values, affine = read_nifti(self.segmentation, keep_dtype=True)
            _check_same_grid(self.segmentation, values.shape, affine, *first)
            label = canonical_labels(values, dict(self.label_map), self.segmentation)
        return check_case(
            Case(
                case_id=self.case_id,
                patient_id=self.patient_id,
                image=np.stack(arrays, axis=-1),
                label=label,
                spacing=spacing_of(first[2]),
                affine=first[2],
                modalities=tuple(name for name, _ in self.images),
            )
        )


def discover(settings: DataSettings) -> list[BratsNiftiSource]:
    """Find every case below `data.root`, at any depth, sorted by case id.

    Raises `UserError` for a case that lacks a modality or has one twice, and for two folders
    that hold the same case.
    """
    assert settings.root is not None  # checked when the config is read
    label_map = settings.label_map or anatomy.BRATS_LABEL_MAP
    found: dict[str, BratsNiftiSource] = {}
    for folder, names in files_below(settings.root):
        for case_id, files in _group(folder, names, settings.modalities).items():
            source = _source(case_id, files, folder, settings.modalities, label_map)
            if case_id in found:
                raise UserError(
                    f"{case_id} lies in two folders, {found[case_id].files[0].parent} and "
                    f"{folder}: remove one."
                )
            found[case_id] = source
    return [found[case_id] for case_id in sorted(found)]


def _group(
    folder: Path, names: list[str], modalities: tuple[str, ...]
) -> dict[str, dict[str, Path]]:
    """Files of one folder by case id and kind (a canonical modality, or 'seg')."""
    groups: dict[str, dict[str, Path]] = {}
    unmatched = []
    for name in names:
        match = _NAME.match(name)
        kind = match["kind"].lower() if match else ""
        kind = anatomy.MODALITY_ALIASES.get(kind, kind)
        if match and (kind in (*anatomy.MODALITIES, *modalities) or kind == "seg"):
            files = groups.setdefault(match["case"], {})
            if kind in files:
                raise UserError(
                    f"{folder / name}: {files[kind].name} beside it is {kind} too: keep one."
                )
            files[kind] = folder / name
        elif match and "segm" in name.lower():
            unmatched.append(folder / name)
    if len(groups) == 1 and len(unmatched) == 1:
        # BraTS 2020 ships case 355's segmentation as W39_1998.09.19_Segm.nii.
        next(iter(groups.values())).setdefault("seg", unmatched[0])
    return {case: files for case, files in groups.items() if set(files) - {"seg"}}


def _source(
    case_id: str,
    files: dict[str, Path],
    folder: Path,
    modalities: tuple[str, ...],
    label_map: Mapping[int, int],
) -> BratsNiftiSource:
    missing = [m for m in modalities if m not in files]
    if missing:
        raise UserError(
            f"{folder}: case {case_id} has no {' and no '.join(missing)} file, only "
            f"{', '.join(p.name for p in files.values())}: restore it, remove the case, or name "
            "the channels you have in data.modalities."
        )
    match = _TIME_POINT.match(case_id)
    return BratsNiftiSource(
        case_id=case_id,
        patient_id=match["patient"] if match else case_id,
        images=tuple((m, files[m]) for m in modalities),
        segmentation=files.get("seg"),
        label_map=tuple(sorted(label_map.items())),
    )


def _check_same_grid(
    path: Path,
    shape: tuple[int, ...],
    affine: np.ndarray,
    first_path: Path,
    first_shape: tuple[int, ...],
    first_affine: np.ndarray,
) -> None:
    if shape != first_shape:
        raise UserError(
            f"{path}: shape {shape} (depth, height, width) differs from {first_path.name}'s "
            f"{first_shape}: all files of a case must share one grid; register or resample it."
        )
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in shape], (1,))).reshape(4, -1)
    shift = float(np.linalg.norm(((affine - first_affine) @ corners)[:3], axis=0).max())
    if shift > _AFFINE_TOLERANCE_MM:
        raise UserError(
            f"{path}: its affine differs from {first_path.name}'s, which moves a corner of the "
            f"volume by {shift:.3g} mm: all files of a case must share one grid; register or "
            "resample it."
        )
