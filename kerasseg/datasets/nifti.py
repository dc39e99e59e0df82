"""NIfTI files: reading, writing, cases made of them, and the layout `nifti` by name patterns."""

import functools
import gzip
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip, igzip_lib, isal_zlib
from nibabel.filebasedimages import ImageFileError
from nibabel.fileholders import FileHolder
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling

from kerasseg import anatomy
from kerasseg.config.data import DataSettings
from kerasseg.datasets.case import Box, BrokenSource, Case, CaseSource, Grid, bounding_box
from kerasseg.datasets.folders import files_below
from kerasseg.datasets.labels import canonical_labels
from kerasseg.errors import UserError
from kerasseg.files import atomic_write

_GZIP_MAGIC = b"\x1f\x8b"
_NIFTI2_HEADER_BYTES = 540
_SCANNER = 1
"""NIFTI_XFORM_SCANNER_ANAT: the code of coordinates of the scanner."""
_QFORM_TOLERANCE_MM = 1e-3
"""A quaternion of float32 does not hold an affine exactly."""
_AFFINE_TOLERANCE_MM = 0.05
"""How far a corner of the volume may move between files; headers round their numbers."""
_SEGMENTATION = "segmentation"
_TOKEN = re.compile(r"\{case\}|\*\*/|\*|\?")
_ISAL_ERROR: type[Exception] = igzip_lib.error  # type: ignore[assignment]  # stub: an instance
_BAD_FILE = (
    TypeError,
    EOFError,
    zlib.error,
    _ISAL_ERROR,
    ImageFileError,
    HeaderDataError,
    OSError,
    ValueError,
    OverflowError,
)


def read_nifti(path: Path, dimensions: int = 3) -> tuple[np.ndarray, Grid]:
    """Read a volume as the file's numbers (x, y, z) or, with `dimensions` 4, (x, y, z, channels).

    The dtype is the file's own, or a float where its header scales the values. `grid.to_ours`
    brings the array into our axes.

    Raises `UserError` for a file that is missing, truncated, no NIfTI, or has other dimensions.
    """
    try:
        data, affine = _voxels(path.read_bytes(), named_gz=path.suffix.lower() == ".gz")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file.") from None
    except PermissionError:
        raise UserError(f"{path}: no permission to read this file: change it.") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder, expected a NIfTI file.") from None
    except _BAD_FILE as error:
        raise UserError(
            f"{path}: cannot be read as NIfTI ({_first_line(error)}): the file is damaged or "
            "truncated; copy or download it again."
        ) from None
    while data.ndim > dimensions and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != dimensions or 0 in data.shape:
        wanted = "one 3-D volume" if dimensions == 3 else "volumes stacked in a fourth dimension"
        raise UserError(f"{path}: expected {wanted}, found shape {data.shape} (x, y, z, …).")
    if data.dtype.kind not in "iufb":
        raise UserError(f"{path}: holds {data.dtype} values, expected grey values.")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise UserError(f"{path}: the affine in the header cannot be inverted: repair the header.")
    x, y, z = data.shape[:3]
    return data, Grid((x, y, z), affine)


def write_nifti(path: Path, voxels: np.ndarray, grid: Grid, setting: str) -> None:
    """Write voxels (x, y, z) of `grid` in one step; `setting` is what would move the file.

    The header has the affine as sform and, unless it shears, as qform: programs read either.
    """
    image = nib.Nifti1Image(voxels, grid.affine)
    image.set_sform(grid.affine, code=_SCANNER)
    image.set_qform(grid.affine, code=_SCANNER)
    if not np.allclose(image.get_qform(), grid.affine, atol=_QFORM_TOLERANCE_MM):
        image.set_qform(None, code=0)
    image.header.set_xyzt_units("mm")
    name = path.name.lower()
    data = image.to_bytes()
    with atomic_write(path, setting) as temporary:
        temporary.write_bytes(gzip.compress(data, 6) if name.endswith(".gz") else data)


def _voxels(raw: bytes, *, named_gz: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return voxels and affine of a file's bytes, which may be compressed."""
    if raw[:2] == _GZIP_MAGIC:
        raw = _decompress(raw)
    elif named_gz and raw:
        raise ImageFileError(
            "it is named .gz, but it is not compressed with gzip; a plain NIfTI file is named .nii"
        )
    if not raw:
        raise ImageFileError("it is empty")
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        if kind.header_class.may_contain_header(raw[:_NIFTI2_HEADER_BYTES]):
            image = kind.from_file_map({"image": FileHolder(fileobj=BytesIO(raw))})
            proxy = image.dataobj
            # The voxels stay where they are: nibabel would copy them.
            stored: np.ndarray = np.ndarray(
                proxy.shape, proxy.dtype, buffer=raw, offset=proxy.offset, order="F"
            )
            scaled = apply_read_scaling(stored, proxy.slope, proxy.inter)
            return np.asarray(scaled), np.asarray(image.affine, float)
    raise ImageFileError("it has no NIfTI header")


def _decompress(raw: bytes) -> bytes:
    """Decompress a gzip file, at four times the speed of zlib (benchmarks/notes.md)."""
    # The last four bytes say how much it is, so that the result is written once and not grown.
    size = int.from_bytes(raw[-4:], "little")
    member = isal_zlib.decompressobj(wbits=isal_zlib.MAX_WBITS + 16)
    data = member.decompress(raw, size)
    if member.eof and not member.unused_data and len(data) == size:
        return data
    return igzip.decompress(raw)  # several members in one file, or cut short: then it says so


def _first_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).strip().split("\n")[0] or type(error).__name__


@dataclass(frozen=True)
class NiftiSource:
    """A case of NIfTI files, whatever the layout.

    images:    a file per modality, or one 4-D file
    channels:  the modalities' places in the 4-D file; empty for a file per modality
    label_map: pairs of the files' id and the canonical id
    """

    case_id: str
    patient_id: str
    modalities: tuple[str, ...]
    images: tuple[Path, ...]
    segmentation: Path | None
    label_map: tuple[tuple[int, int], ...]
    channels: tuple[int, ...] = ()
    classes: str = "subregions"

    @property
    def files(self) -> tuple[Path, ...]:
        return (*self.images, self.segmentation) if self.segmentation else self.images

    def load(self) -> Case:
        volumes, grid = self._read_stacked() if self.channels else self._read_each()
        label = None
        if self.segmentation:
            values, label_grid = read_nifti(self.segmentation)
            _check_same_grid(self.segmentation, label_grid, self.images[0], grid)
            label = canonical_labels(
                np.ascontiguousarray(grid.to_ours(values)), dict(self.label_map), self.segmentation
            )
        notes = []
        for index, (modality, volume) in enumerate(zip(self.modalities, volumes, strict=True)):
            air = air_value(volume)
            if air:
                volumes[index] = volume.astype(np.float32) - np.float32(air)
                notes.append(f"air is {air:g} in the file of {modality}, and was made 0")
        image, box, signal = _stack([grid.to_ours(volume) for volume in volumes])
        return Case(
            case_id=self.case_id,
            patient_id=self.patient_id,
            image=image,
            label=label,
            spacing=grid.spacing,
            affine=grid.our_affine,
            modalities=self.modalities,
            grid=grid,
            classes=self.classes,
            notes=notes,
            box=box,
            signal=signal,
        )

    def _read_each(self) -> tuple[list[np.ndarray], Grid]:
        first, *others = self.images
        volume, grid = read_nifti(first)
        volumes = [volume]
        for path in others:
            volume, other = read_nifti(path)
            _check_same_grid(path, other, first, grid)
            volumes.append(volume)
        return volumes, grid

    def _read_stacked(self) -> tuple[list[np.ndarray], Grid]:
        (path,) = self.images
        data, grid = read_nifti(path, dimensions=4)
        if data.shape[3] <= max(self.channels):
            raise UserError(
                f"{path}: has {data.shape[3]} channel(s), but dataset.json names more: the file "
                "or dataset.json is of another data set."
            )
        return [data[..., channel] for channel in self.channels], grid


def air_value(volume: np.ndarray) -> float:
    """Return the value of the air around the head: that of all eight corners, or 0 if they differ.

    Scans that were normalised as a whole have a number other than 0 there; everything that looks
    for the brain, and the z-score, would take their air for tissue. A constant scan has no air.
    """
    corners = volume[:: max(volume.shape[0] - 1, 1), :: max(volume.shape[1] - 1, 1)]
    corners = corners[:, :, :: max(volume.shape[2] - 1, 1)]
    value = corners.flat[0]
    if value == 0 or not np.isfinite(value) or (corners != value).any() or (volume == value).all():
        return 0.0
    return float(value)


def nifti_source(
    data: DataSettings,
    case_id: str,
    images: Sequence[Path],
    segmentation: Path | None = None,
    *,
    label_map: Mapping[int, int] = anatomy.BRATS_LABEL_MAP,
    channels: tuple[int, ...] = (),
    patient_id: str | None = None,
) -> NiftiSource:
    """Return the source of a case that is read as section `data` asks.

    Without `patient_id` the case is a patient of its own. `data.label_map`, if there is one,
    counts instead of `label_map`.
    """
    return NiftiSource(
        case_id=case_id,
        patient_id=patient_id or case_id,
        modalities=data.modalities,
        images=tuple(images),
        segmentation=segmentation,
        label_map=tuple(sorted((data.label_map or label_map).items())),
        channels=channels,
        classes=data.classes,
    )


def _stack(volumes: list[np.ndarray]) -> tuple[np.ndarray, Box, np.ndarray]:
    """Stack volumes (D, H, W) to an image (D, H, W, C) float32.

    Returns also the box outside which all of them are 0, and where in it any is not. Only the box
    is written: most of a skull-stripped scan is air, whose pages stay untouched.
    """
    if all(volume.dtype == volumes[0].dtype and volume.dtype.kind in "iu" for volume in volumes):
        inside = functools.reduce(np.bitwise_or, volumes) != 0  # many times as fast as below
    else:
        inside = np.zeros(volumes[0].shape, bool)
        for volume in volumes:
            np.logical_or(inside, volume, out=inside)  # NaN counts as something
    box = bounding_box(inside)
    image = np.zeros((*inside.shape, len(volumes)), np.float32)
    depths, rows, columns = box
    for depth in range(depths.start, depths.stop):  # slice by slice, so that it stays in the cache
        for channel, volume in enumerate(volumes):
            image[depth, rows, columns, channel] = volume[depth, rows, columns]
    return image, box, inside[box]


def _check_same_grid(path: Path, grid: Grid, first_path: Path, first: Grid) -> None:
    if grid.shape != first.shape:
        raise UserError(
            f"{path}: shape {grid.shape} (x, y, z) differs from {first_path.name}'s "
            f"{first.shape}: all files of a case must share one grid; register or resample it."
        )
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in grid.shape], (1,))).reshape(4, -1)
    shift = float(np.linalg.norm(((grid.affine - first.affine) @ corners)[:3], axis=0).max())
    if shift > _AFFINE_TOLERANCE_MM:
        raise UserError(
            f"{path}: its affine differs from {first_path.name}'s, which moves a corner of the "
            f"volume by {shift:.3g} mm: all files of a case must share one grid; register or "
            "resample it."
        )


def discover(settings: DataSettings) -> list[CaseSource]:
    """Find every case by the patterns of `data.files`. One that lacks a modality is broken."""
    assert settings.root is not None  # checked when the config is read
    patterns = {m: settings.files[m] for m in settings.modalities}
    if settings.segmentation is not None:
        patterns[_SEGMENTATION] = settings.segmentation
    compiled = {kind: pattern_regex(pattern) for kind, pattern in patterns.items()}
    found: dict[str, dict[str, list[Path]]] = {}
    for folder, names in files_below(settings.root):
        for name in names:
            path = folder / name
            relative = path.relative_to(settings.root).as_posix()
            for kind, pattern in compiled.items():
                match = pattern.fullmatch(relative)
                if match:
                    found.setdefault(match["case"], {}).setdefault(kind, []).append(path)
    return [
        _source(case_id, kinds, patterns, settings)
        for case_id, kinds in found.items()
        if set(kinds) - {_SEGMENTATION}
    ]


def pattern_regex(pattern: str) -> re.Pattern[str]:
    """Turn a pattern into a regular expression over the path below `data.root`.

    `*` and `?` stay within one folder's name, `**/` is any number of folders, and a second
    `{case}` is the same name again.
    """
    parts, end, seen = [], 0, False
    for token in _TOKEN.finditer(pattern):
        parts.append(re.escape(pattern[end : token.start()]))
        end = token.end()
        if token[0] == "{case}":
            parts.append("(?P=case)" if seen else "(?P<case>[^/]+)")
            seen = True
        else:
            parts.append({"*": "[^/]*", "?": "[^/]", "**/": "(?:.*/)?"}[token[0]])
    return re.compile("".join(parts) + re.escape(pattern[end:]))


def _source(
    case_id: str, kinds: dict[str, list[Path]], patterns: dict[str, str], settings: DataSettings
) -> CaseSource:
    files = tuple(path for paths in kinds.values() for path in paths)
    missing = [kind for kind in settings.modalities if kind not in kinds]
    if missing:
        looked = " and ".join(f"{kind} ({patterns[kind]})" for kind in missing)
        reason = (
            f"{settings.root}: case {case_id} has no {looked}, only "
            f"{', '.join(p.name for p in files)}: restore the file, remove the case, or change "
            "data.files."
        )
        return BrokenSource(case_id, case_id, files, reason)
    for kind, paths in kinds.items():
        if len(paths) > 1:
            reason = (
                f"{paths[0]} and {paths[1]} both fit the pattern of {kind}, {patterns[kind]}: make "
                "the pattern narrower, or keep one file."
            )
            return BrokenSource(case_id, case_id, files, reason)
    images = [kinds[m][0] for m in settings.modalities]
    segmentation = kinds[_SEGMENTATION][0] if _SEGMENTATION in kinds else None
    return nifti_source(settings, case_id, images, segmentation)
