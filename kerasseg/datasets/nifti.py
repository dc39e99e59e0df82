"""NIfTI files: reading, writing, and cases made of them."""

import functools
import gzip
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip, igzip_lib, isal_zlib
from nibabel.affines import voxel_sizes
from nibabel.filebasedimages import ImageFileError
from nibabel.fileholders import FileHolder
from nibabel.orientations import aff2axcodes
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling

from kerasseg import anatomy
from kerasseg.config.data import DataSettings
from kerasseg.config.layouts import VOLUMES
from kerasseg.datasets.case import (
    Box,
    Case,
    Grid,
    Header,
    bounding_box,
    bring_to,
    corner_distance,
    with_zero_air,
)
from kerasseg.datasets.folders import unpacked
from kerasseg.datasets.labels import canonical_labels, enhancing_id, is_named_as_2023
from kerasseg.errors import UserError
from kerasseg.files import write_bytes

_GZIP_MAGIC = b"\x1f\x8b"
_NIFTI2_HEADER_BYTES = 540
_SCANNER = 1
"""NIFTI_XFORM_SCANNER_ANAT: the code of coordinates of the scanner."""
_QFORM_TOLERANCE_MM = 1e-3
"""A quaternion of float32 does not hold an affine exactly."""
_MILLIMETRES = {1: 1000.0, 3: 0.001}
"""NIfTI's numbers of units other than mm -> how many mm one is."""
_POSSIBLE_MM = (0.01, 100.0)
"""Between these the size of a voxel is believed."""
_SAME_SIZE = 0.01
_SAME_PLACE_VOXELS = 0.5
"""So far the two forms of a header may be apart: a quaternion of float32 rounds."""
_AFFINE_TOLERANCE_MM = 0.05
"""How far a corner of the volume may move between files; headers round their numbers."""
_SINGULAR = 1e-12
"""Determinant of an affine below which it counts as flat; voxels may be micrometres, or metres."""
_ALL_BRAIN = 0.95
"""Share of a volume that is signal, above which air is not 0. That of BraTS2021_00006 is 0.17, and
0.47 when it is cut to the box of its brain."""
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
    with _faults_as_sentences(path):
        data, affine, header = _voxels(path.read_bytes())
    data = data.reshape(_without_ones(data.shape, dimensions), order="F")
    if data.ndim != dimensions or 0 in data.shape:
        wanted = "one 3-D volume" if dimensions == 3 else "volumes stacked in a fourth dimension"
        raise UserError(f"{path}: expected {wanted}, found shape {data.shape} (x, y, z, …).")
    if data.dtype.kind not in "iufb":
        raise UserError(f"{path}: holds {data.dtype} values, expected grey values.")
    if not _is_invertible(affine):
        raise UserError(f"{path}: the affine in the header cannot be inverted: repair the header.")
    x, y, z = data.shape[:3]
    return data, Grid((x, y, z), affine, header)


def read_header(path: Path) -> tuple[tuple[int, ...], Any]:
    """Return the shape that a file's header tells, without axes of length 1 after the third.

    The header itself, one of nibabel's, is returned with it. Raises `UserError` for a file that is
    missing or no NIfTI.
    """
    with _faults_as_sentences(path), path.open("rb") as file:
        start = file.read(_NIFTI2_HEADER_BYTES)
        if start[:2] == _GZIP_MAGIC:
            file.seek(0)
            with gzip.open(file) as unpacked:
                start = unpacked.read(_NIFTI2_HEADER_BYTES)
        header = _kind_of(start).header_class.from_fileobj(BytesIO(start), check=False)
        return _without_ones(tuple(int(n) for n in header.get_data_shape()), 3), header


def _without_ones(shape: tuple[int, ...], dimensions: int) -> tuple[int, ...]:
    """Drop axes of length 1 after the third, from the third on, where there are too many.

    ITK writes several channels as a fifth axis behind a fourth, time, of length 1.
    """
    for axis in reversed(range(3, len(shape))):
        if len(shape) > dimensions and shape[axis] == 1:
            shape = (*shape[:axis], *shape[axis + 1 :])
    return shape


@contextmanager
def _faults_as_sentences(path: Path) -> Iterator[None]:
    try:
        yield
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


def write_nifti(path: Path, voxels: np.ndarray, grid: Grid, setting: str) -> None:
    """Write voxels (x, y, z) of `grid` in one step; `setting` is what would move the file."""
    data = nifti_bytes(voxels, grid)
    packed = path.name.lower().endswith(".gz")
    write_bytes(path, gzip.compress(data, 6) if packed else data, setting)


def nifti_bytes(voxels: np.ndarray, grid: Grid) -> bytes:
    """Return the bytes of a NIfTI file, not compressed, with voxels (x, y, z) of `grid`.

    The header places the voxels as that of the scan does. Where there is none it has the affine as
    sform and, unless it shears, as qform: programs read either.
    """
    header = grid.header
    if header is not None:
        image = nib.Nifti1Image(voxels, None)
        image.set_qform(header.qform, header.qform_code)
        image.header.set_zooms(header.zooms)
        image.set_sform(header.sform, header.sform_code)
        image.header["xyzt_units"] = header.unit
    else:
        image = nib.Nifti1Image(voxels, grid.affine)
        image.set_sform(grid.affine, code=_SCANNER)
        image.set_qform(grid.affine, code=_SCANNER)
        if not np.allclose(image.get_qform(), grid.affine, atol=_QFORM_TOLERANCE_MM):
            image.set_qform(None, code=0)
        image.header.set_xyzt_units("mm")
    data: bytes = image.to_bytes()
    return data


def _voxels(raw: bytes) -> tuple[np.ndarray, np.ndarray, Header]:
    """Return voxels, affine and header of a file's bytes.

    The bytes say whether they are compressed, not the name: browsers unpack what they download and
    leave it its name.
    """
    if raw[:2] == _GZIP_MAGIC:
        raw = _decompress(raw)
    image = _kind_of(raw).from_file_map({"image": FileHolder(fileobj=BytesIO(raw))})
    proxy = image.dataobj
    # The voxels stay where they are: nibabel would copy them.
    stored: np.ndarray = np.ndarray(
        proxy.shape, proxy.dtype, buffer=raw, offset=proxy.offset, order="F"
    )
    scaled = apply_read_scaling(stored, proxy.slope, proxy.inter)
    return np.asarray(scaled), *_place(image.header)


def _kind_of(raw: bytes) -> Any:
    """Return nibabel's class for a file that begins with these bytes."""
    if not raw:
        raise ImageFileError("it is empty")
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        if kind.header_class.may_contain_header(raw[:_NIFTI2_HEADER_BYTES]):
            return kind
    raise ImageFileError("it has no NIfTI header")


def _place(header: Any) -> tuple[np.ndarray, Header]:
    """Return the affine in mm of one of nibabel's NIfTI headers, and how the header says it.

    The sform counts before the qform, as for nibabel, unless it cannot be inverted.
    """
    sform, sform_code = header.get_sform(coded=True)
    try:
        qform, qform_code = header.get_qform(coded=True)
        stored = header.get_qform()
    except HeaderDataError:  # a quaternion that is none
        qform, qform_code, stored = None, 0, None
    shape = tuple(int(n) for n in header.get_data_shape()[:3])
    zooms = tuple(float(size) for size in header.get_zooms()[:3])
    notes = []
    affine = header.get_base_affine() if sform is None and qform is None else sform
    if affine is None or (qform is not None and not _is_invertible(affine)):
        if affine is not None:
            notes.append("the header's sform cannot be inverted, so its qform counts")
        affine = qform
    if sform is None and qform is None:
        notes.append(
            "the header does not say how the scan lies in space (sform_code and qform_code are 0), "
            "so sides may be swapped"
        )
    elif sform is not None and _is_invertible(sform):
        sizes = voxel_sizes(sform)
        if not np.allclose(sizes, zooms, rtol=_SAME_SIZE):
            notes.append(
                f"the header gives two voxel sizes (x, y, z), {_format(sizes)} by its sform, which "
                f"counts, and {_format(zooms)} by pixdim"
            )
        if qform is not None and aff2axcodes(sform) != aff2axcodes(qform):
            names = ["".join(aff2axcodes(form)) for form in (sform, qform)]
            notes.append(
                f"the header gives two orientations, {names[0]} by its sform, which counts, and "
                f"{names[1]} by its qform"
            )
        elif qform is not None:
            apart = corner_distance(sform, qform, shape) / min(zooms)
            if apart > _SAME_PLACE_VOXELS:
                notes.append(
                    f"the header gives two places, {apart:.3g} voxels apart: its sform counts, but "
                    "programs that go by the qform show the scan elsewhere"
                )
    unit = int(header["xyzt_units"]) & 7
    affine = np.array(affine, float)
    factor = _MILLIMETRES.get(unit, 1.0)
    sizes = voxel_sizes(affine) * factor
    low, high = _POSSIBLE_MM
    if (low <= sizes).all() and (sizes <= high).all():
        affine[:3] *= factor
    elif factor != 1:
        notes.append(
            f"the unit in the header would make voxels of {_format(sizes)} mm (x, y, z), and was "
            "read as mm"
        )
    return affine, Header(
        header.get_sform(), sform_code, stored, qform_code, zooms, unit, tuple(notes)
    )


def _is_invertible(affine: np.ndarray) -> bool:
    return bool(np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) >= _SINGULAR)


def _format(sizes: Sequence[float]) -> str:
    return " x ".join(f"{size:.4g}" for size in sizes)


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
    stacked:   how many channels the 4-D file must have
    note:      what is odd about how the files were found
    label_map: pairs of the files' id and the canonical id; None is BraTS's of any year, under
               which nobody said whether enhancing tumour is 3 or 4
    """

    case_id: str
    patient_id: str
    modalities: tuple[str, ...]
    images: tuple[Path, ...]
    segmentation: Path | None
    label_map: tuple[tuple[int, int], ...] | None
    channels: tuple[int, ...] = ()
    stacked: int = 0
    classes: str = "subregions"
    note: str = ""
    skull_stripped: bool = True

    @property
    def files(self) -> tuple[Path, ...]:
        return (*self.images, self.segmentation) if self.segmentation else self.images

    @property
    def reading(self) -> str:
        """How the files are read, which a corrected dataset.json changes without changing them."""
        return f"label ids {self.label_map}, channels {self.channels} of {self.stacked}"

    def load(self) -> Case:
        volumes, grid = self._read_stacked() if self.channels else self._read_each()
        label = enhancing = None
        if self.segmentation:
            values = _read_beside(self.segmentation, self.images[0], grid)
            chosen = self.label_map is not None
            label_map = anatomy.BRATS_LABEL_MAP if self.label_map is None else dict(self.label_map)
            label = canonical_labels(
                np.ascontiguousarray(values), label_map, self.segmentation, chosen=chosen
            )
            enhancing = None if chosen else enhancing_id(values, label)
        notes = [self.note] if self.note else []
        notes += grid.header.notes if grid.header else ()
        for index, (modality, volume) in enumerate(zip(self.modalities, volumes, strict=True)):
            volumes[index], said = with_zero_air(volume, modality)
            notes += said
        image, box, signal = _stack(volumes)
        all_brain = _ALL_BRAIN * math.prod(image.shape[:3])
        if len(image) > 1 and self.skull_stripped and np.count_nonzero(signal) > all_brain:
            notes.append(
                "hardly a voxel is 0 in all modalities, so the whole volume counts as brain: "
                "remove the skull and make the air 0, or set data.skull_stripped=false"
            )
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
            enhancing_id=enhancing,
            intensities=VOLUMES,
            box=box,
            signal=signal,
        )

    def _read_each(self) -> tuple[list[np.ndarray], Grid]:
        """Return the modalities (D, H, W), and the grid of the first file."""
        first, *others = self.images
        volume, grid = read_nifti(first)
        return [grid.to_ours(volume), *(_read_beside(path, first, grid) for path in others)], grid

    def _read_stacked(self) -> tuple[list[np.ndarray], Grid]:
        (path,) = self.images
        data, grid = read_nifti(path, dimensions=4)
        if data.shape[3] != self.stacked:
            raise UserError(
                f"{path}: shape {data.shape} (x, y, z, channel) has {data.shape[3]} channel(s), "
                f"but dataset.json names {self.stacked}: the file or dataset.json is of another "
                "data set, the file holds several time points, or its channels are its first axis."
            )
        return [grid.to_ours(data[..., channel]) for channel in self.channels], grid


def nifti_source(
    data: DataSettings,
    case_id: str,
    images: Sequence[Path],
    segmentation: Path | None = None,
    *,
    label_map: Mapping[int, int] | None = None,
    stack: tuple[tuple[int, ...], int] = ((), 0),
    note: str = "",
) -> NiftiSource:
    """Return the source of a case that is read as section `data` asks.

    `stack` has the modalities' places in a 4-D file, and how many channels that has. The case is a
    patient of its own. `data.label_map`, if there is one, counts instead of `label_map`; where
    there is neither, the files' names tell the year of BraTS, or its ids of any year count.
    """
    of_names = anatomy.BRATS_2023_LABEL_MAP if is_named_as_2023(images) else None
    ids = data.label_map or label_map or of_names
    return NiftiSource(
        case_id=case_id,
        patient_id=case_id,
        modalities=data.modalities,
        images=tuple(map(unpacked, images)),
        segmentation=unpacked(segmentation) if segmentation else None,
        label_map=tuple(sorted(ids.items())) if ids else None,
        channels=stack[0],
        stacked=stack[1],
        classes=data.classes,
        note=note,
        skull_stripped=data.skull_stripped,
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


def _read_beside(path: Path, first_path: Path, first: Grid) -> np.ndarray:
    """Read a volume (D, H, W) of a case whose first file has the grid `first`.

    Raises `UserError` if it does not lie in the same place.
    """
    values, grid = read_nifti(path)
    volume, shift = bring_to(first, values, grid)
    if math.isinf(shift):
        raise UserError(
            f"{path}: shape {grid.shape} (x, y, z) differs from {first_path.name}'s "
            f"{first.shape}: all files of a case must share one grid; register or resample it."
        )
    if shift > _AFFINE_TOLERANCE_MM:
        raise UserError(
            f"{path}: its affine differs from {first_path.name}'s, which moves a corner of the "
            f"volume by {shift:.3g} mm: all files of a case must share one grid; register or "
            "resample it."
        )
    return volume
