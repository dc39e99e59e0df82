"""Reading one NIfTI file into the house's axes."""

import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel import affines, orientations
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from kerasseg.errors import UserError

_LPS = orientations.axcodes2ornt(("L", "P", "S"))
_REVERSE_AXES = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], float)
"""(d, h, w, 1) -> (x, y, z, 1), for the transposition from file axes to ours."""


def read_nifti(path: Path, *, keep_dtype: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Read a 3-D volume as array (D, H, W) and affine (4 x 4), array indices -> RAS mm.

    Whatever the header's axes, the array is turned to left, posterior, superior (BraTS's own
    order) and transposed, so depth grows upwards, height to the back and width to the left:
    scans with RAS and with LPS headers give the same array. Float32, or the file's own dtype
    with `keep_dtype` (for label maps).

    Raises `UserError` for a file that is missing, truncated, no NIfTI or not 3-D.
    """
    try:
        image = nib.load(path)
        data = np.asanyarray(image.dataobj) if keep_dtype else image.get_fdata(dtype=np.float32)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file.") from None
    except PermissionError:
        raise UserError(f"{path}: no permission to read this file: change it.") from None
    except (
        TypeError,
        EOFError,
        zlib.error,
        ImageFileError,
        HeaderDataError,
        OSError,
        ValueError,
    ) as error:
        raise UserError(
            f"{path}: cannot be read as NIfTI ({_first_line(error)}): the file is damaged or "
            "truncated; copy or download it again."
        ) from None
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        raise UserError(f"{path}: expected one 3-D volume, found shape {data.shape} (x, y, z, …).")
    affine = np.asarray(image.affine, float)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise UserError(f"{path}: the affine in the header cannot be inverted: repair the header.")
    turn = orientations.ornt_transform(orientations.io_orientation(affine), _LPS)
    affine = affine @ orientations.inv_ornt_aff(turn, data.shape)
    array = orientations.apply_orientation(data, turn).transpose(2, 1, 0)
    return np.ascontiguousarray(array), affine @ _REVERSE_AXES


def spacing_of(affine: np.ndarray) -> tuple[float, float, float]:
    """Voxel size (D, H, W) in mm of an affine over (d, h, w)."""
    d, h, w = (float(v) for v in affines.voxel_sizes(affine))
    return d, h, w


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
