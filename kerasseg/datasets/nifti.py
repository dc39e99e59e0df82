"""Reading and writing NIfTI files, in the house's axes."""

import gzip
import zlib
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip, igzip_lib, isal_zlib
from nibabel.filebasedimages import ImageFileError
from nibabel.fileholders import FileHolder
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling

from kerasseg.datasets.grid import Grid
from kerasseg.errors import UserError
from kerasseg.write_aside import write_aside

_GZIP_MAGIC = b"\x1f\x8b"
_NIFTI2_HEADER_BYTES = 540
_SCANNER = 1
"""NIFTI_XFORM_SCANNER_ANAT: the code of coordinates of the scanner."""
_QFORM_TOLERANCE_MM = 1e-3
"""A quaternion of float32 does not hold an affine exactly."""
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
    with write_aside(path, setting) as temporary:
        temporary.write_bytes(gzip.compress(data, 6) if name.endswith(".gz") else data)


def _voxels(raw: bytes, *, named_gz: bool) -> tuple[np.ndarray, np.ndarray]:
    """Voxels and affine of a file's bytes, which may be compressed, of either NIfTI version."""
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
    """What a gzip file holds, at four times the speed of zlib (benchmarks/notes.md)."""
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
