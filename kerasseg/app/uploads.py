"""Files that a visitor sends: what they are taken for, what is refused, and scans made of them.

Names of files are only looked at: a file is written under a name of harmless letters into the
session's own folder, and nothing is opened that a name, an archive or an HDF5 file points to.
"""

import dataclasses
import io
import re
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

import h5py
import numpy as np
from PIL import Image

from kerasseg import anatomy
from kerasseg.app.sessions import Scan, Session, TrayFile
from kerasseg.config.data import DataSettings
from kerasseg.config.layouts import H5, NIFTI, PICTURES
from kerasseg.datasets.case import Input, inverse
from kerasseg.datasets.dataset_json import label_ids_of_names
from kerasseg.datasets.inputs import find_inputs
from kerasseg.datasets.nifti import nifti_source, read_header
from kerasseg.datasets.nifti_inputs import NO_SCAN
from kerasseg.serving.server.limits import MIB, Limits, Reason, Refusal, bad_input, inflate

TRUTH: Final = "truth"
CHANNELS: Final = "all"
IGNORE: Final = ""
GZIP: Final = b"\x1f\x8b"  # what a gzip file begins with
_MOST_FILES = 2000
_LONGEST = 120
_ARCHIVES = (".zip", ".tar", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")
_BAD_ZIP = (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, ValueError, zlib.error)
_PIXELS = 64 * MIB
_PICTURE_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")


def kind_of(name: str) -> str:
    """Return what a file is by its name: nifti, h5, picture, zip or dicom.

    Raises `Refusal` if it is none of these.
    """
    lower = name.lower()
    for kind, endings in (("nifti", NIFTI), ("h5", H5), ("picture", PICTURES), ("zip", (".zip",))):
        if lower.endswith(endings):
            return kind
    raise bad_input(
        f"{safe_name(name)} is of no kind that is read here: expected .nii, .nii.gz, .h5, .png, "
        ".jpg, .tif or .zip."
    )


def guess_role(name: str) -> str:
    """Guess from a name which modality a NIfTI file is, or whether it is the truth.

    The last word counts that is a modality's name: in sub-01_T1w_FLAIR.nii.gz it is FLAIR.
    """
    if NO_SCAN.search(name):
        return TRUTH
    stem = re.sub(r"\.nii(\.gz)?$", "", name.lower())
    for word in reversed(re.split(r"[^a-z0-9]+", stem)):
        role = anatomy.MODALITY_ALIASES.get(word, word)
        if role in anatomy.MODALITIES:
            return role
    return IGNORE


def safe_name(name: str) -> str:
    """Return the last part of a name without anything that a file system or a page could read."""
    leaf = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    clean = re.sub(r"[^A-Za-z0-9._-]+", "_", leaf).lstrip(".") or "file"
    return clean if len(clean) <= _LONGEST else clean[:20] + clean[-(_LONGEST - 20) :]


def look(files: Mapping[str, int], limits: Limits) -> list[dict[str, Any]]:
    """Say of files that are not sent yet what they are taken for, or what is wrong with them.

    `files` is name -> bytes.
    """
    if len(files) > _MOST_FILES:
        raise Refusal(
            Reason.TOO_LARGE, f"{len(files)} files; at most {_MOST_FILES} are taken: send one scan."
        )
    found = []
    for name, size in files.items():
        entry: dict[str, Any] = {"name": name, "size": size, "error": ""}
        try:
            entry["kind"] = kind_of(name)
            if size > limits.request_bytes:
                raise _too_large(safe_name(name), size, limits.request_bytes)
        except Refusal as refusal:
            entry |= {"kind": "", "error": refusal.sentence}
        entry["role"] = guess_role(name) if entry["kind"] == "nifti" else IGNORE
        found.append(entry)
    return found


def _too_large(name: str, size: float, most: int) -> Refusal:
    return Refusal(
        Reason.TOO_LARGE,
        f"{name} has {size / MIB:,.0f} MiB; at most {most / MIB:,.0f} MiB are taken.",
    )


def receive(session: Session, name: str, role: str, body: bytes, limits: Limits) -> None:
    """Put a file that was sent into the tray; of a zip the files in it.

    Raises `Refusal` for a file that is too large, damaged, of a kind that is not read, or an
    archive with anything in it that a scan does not need.
    """
    if kind_of(name) == "zip":
        _unzip(session, body, limits)
    else:
        _put(session, name, role, body, limits)


def _put(session: Session, name: str, role: str, body: bytes, limits: Limits) -> None:
    kind, safe = kind_of(name), safe_name(name)
    if kind == "nifti" and body.startswith(GZIP):
        # Unpacked here, where a limit holds, so that no reader meets a bomb.
        body = inflate(body, limits.volume_bytes, safe, Reason.TOO_LARGE)
        if body.startswith(GZIP):
            raise bad_input(f"{safe} is gzip inside of gzip, expected NIfTI in it: pack it once.")
        safe = re.sub(r"\.gz$", "", safe, flags=re.IGNORECASE)
    with session.lock:
        if len(session.tray) >= _MOST_FILES:
            raise Refusal(Reason.TOO_LARGE, f"At most {_MOST_FILES} files are taken for a scan.")
        if safe in session.tray:
            raise bad_input(f"Two files are called {safe}: send one scan at a time.")
        session.tray_folder.mkdir(parents=True, exist_ok=True)
        path = session.tray_folder / safe
        path.write_bytes(body)
        try:
            size = max(len(body), _unpacked_bytes(path, kind, limits))
            total = size + sum(file.size for file in session.tray.values())
            if total > limits.volume_bytes:
                raise _too_large(f"The scan with {safe}", total, limits.volume_bytes)
        except Exception:
            path.unlink()
            raise
        session.tray[safe] = TrayFile(path, role, kind, size)


def _unzip(session: Session, body: bytes, limits: Limits) -> None:
    try:
        archive = zipfile.ZipFile(io.BytesIO(body))
        members = [member for member in archive.infolist() if not member.is_dir()]
    except _BAD_ZIP as error:
        raise bad_input(f"The zip file is damaged: {error}.") from None
    if len(members) > _MOST_FILES:
        raise Refusal(Reason.TOO_LARGE, f"The zip holds more than {_MOST_FILES} files.")
    if (total := sum(member.file_size for member in members)) > limits.volume_bytes:
        raise _too_large("The contents of the zip", total, limits.volume_bytes)
    wanted = []
    for member in members:
        path, shown = PurePosixPath(member.filename), safe_name(member.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in member.filename:
            raise bad_input(f"The zip holds {shown} at a place outside of it: make it anew.")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise bad_input(f"The zip holds a link, {shown}: put the file itself into it.")
        if member.flag_bits & 1:
            raise bad_input("The zip is encrypted: send it without a password.")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise bad_input(f"{shown} in the zip is packed in an unusual way: use plain zip.")
        if path.name.lower().endswith(_ARCHIVES):
            raise bad_input(f"The zip holds another archive, {shown}: unpack that one first.")
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
        if path.name.lower().endswith((*NIFTI, *H5, *PICTURES)) and not hidden:
            wanted.append(member)
    if not wanted:
        raise bad_input("The zip holds no file that is read here: no NIfTI, HDF5 or picture.")
    for member in wanted:
        try:
            with archive.open(member) as file:
                # A size that the archive does not tell the truth about is cut, and then fails.
                contents = file.read(member.file_size + 1)
        except _BAD_ZIP as error:
            raise bad_input(
                f"{safe_name(member.filename)} in the zip is damaged: {str(error)[:100]}."
            ) from None
        role = guess_role(safe_name(member.filename))
        _put(session, member.filename, role, contents, limits)


def _unpacked_bytes(path: Path, kind: str, limits: Limits) -> float:
    """Return the bytes of a file's values as float32; refuse what leads its reader elsewhere."""
    if kind == "nifti":
        shape, _ = read_header(path)
        return 4 * float(abs(np.prod(np.asarray(shape, float))))
    if kind == "picture":
        try:
            with Image.open(path, formats=_PICTURE_FORMATS) as image:
                pixels, channels = image.size[0] * image.size[1], len(image.getbands())
        except Exception as error:  # Pillow's plug-ins raise anything
            raise bad_input(
                f"{path.name} cannot be read as a picture ({type(error).__name__})."
            ) from None
        if pixels > _PIXELS:
            raise Refusal(Reason.TOO_LARGE, f"{path.name} has {pixels:,} pixels: too many.")
        return 4 * pixels * channels
    return _h5_bytes(path, limits)


def _h5_bytes(path: Path, limits: Limits) -> int:
    """Return the bytes of a slice's values; refuse one that lies in other files or is too large."""
    size = 0
    try:
        with h5py.File(path, "r") as file:
            for name in ("image", "mask"):
                link = file.get(name, getlink=True)
                if link is None:
                    continue
                if not isinstance(link, h5py.HardLink):
                    raise bad_input(f"{path.name}: {name} is a link: store the values themselves.")
                found = file[name]
                if not isinstance(found, h5py.Dataset):
                    raise bad_input(f"{path.name}: {name} is no dataset.")
                if found.is_virtual or found.external:
                    raise bad_input(f"{path.name}: {name} lies in other files: store it here.")
                if found.dtype.kind not in "iufb" or found.ndim != 3:
                    raise bad_input(f"{path.name}: {name} is no array of numbers (x, y, channels).")
                if found.size * found.dtype.itemsize > limits.volume_bytes // 64:
                    raise Refusal(Reason.TOO_LARGE, f"{path.name}: {name} is too large a slice.")
                size += 4 * found.size
    except (OSError, RuntimeError, ValueError, KeyError):
        raise bad_input(f"{path.name} cannot be read as HDF5: it is damaged.") from None
    return size


def describe_tray(session: Session) -> list[dict[str, Any]]:
    """Return what the page shows of the files that were sent."""
    return [
        {"name": name, "kind": file.kind, "role": file.role, "size": file.path.stat().st_size}
        for name, file in session.tray.items()
    ]


def make_scan(session: Session, data: DataSettings, roles: Mapping[str, str]) -> Scan:
    """Make a scan of the files in the tray, and empty it.

    Raises `UserError` or `Refusal` if the files are not one scan.

    Args:
        data: Section `data` of the run that is to predict the scan first.
        roles: Name -> the role that the visitor chose for a NIfTI file.
    """
    with session.lock:
        for name, role in roles.items():
            if name in session.tray:
                session.tray[name].role = role
        if not session.tray:
            raise bad_input("No file was sent: choose the files of a scan first.")
        nifti = [file for file in session.tray.values() if file.kind == "nifti"]
        found = _nifti_scan(nifti, data) if nifti else _other_scan(session, data)
        scan = session.add_scan(found.source.load(), found.picture, found.label_ids)
        session.clear_tray()
    return scan


def _nifti_scan(files: list[TrayFile], data: DataSettings) -> Input:
    """Return the scan of NIfTI files by their roles."""
    truth = [file.path for file in files if file.role == TRUTH]
    if len(truth) > 1:
        raise bad_input(f"{truth[0].name} and {truth[1].name} are both the truth: keep one.")
    stacked = [file.path for file in files if file.role == CHANNELS]
    named: dict[str, Path] = {}
    for file in files:
        if file.role in (TRUTH, IGNORE, CHANNELS):
            continue
        if file.role in named:
            raise bad_input(
                f"{named[file.role].name} and {file.path.name} are both {file.role}: choose what "
                "each of them is."
            )
        named[file.role] = file.path
    if stacked:
        if named or len(stacked) > 1:
            raise bad_input("A file with all channels needs no other scan beside it: leave it out.")
        (found,) = find_inputs(stacked, data)
        source: Any = found.source
        ids = found.label_ids
    else:
        if not named:
            raise bad_input("No file is a scan yet: say which modality each of them is.")
        order = [m for m in (*anatomy.MODALITIES, *data.modalities) if m in named]
        data = data.model_copy(update={"modalities": tuple(dict.fromkeys(order))})
        paths = [named[m] for m in data.modalities]
        ids = label_ids_of_names(tuple(paths), data)
        source = nifti_source(data, _case_name(paths), paths)
    if truth:
        label_map = source.label_map if ids is None else tuple(inverse(ids).items())
        source = dataclasses.replace(source, segmentation=truth[0], label_map=label_map)
    return Input(source, label_ids=ids)


def _case_name(paths: list[Path]) -> str:
    """Return what the names of the files begin with in common."""
    stems = [re.sub(r"\.nii$", "", path.name, flags=re.IGNORECASE) for path in paths]
    first, last = min(stems), max(stems)
    shared = next((i for i, letter in enumerate(first) if last[i : i + 1] != letter), len(first))
    if len(stems) == 1:
        return stems[0]
    return re.sub(r"[_.-]+t?$", "", first[:shared], flags=re.IGNORECASE) or "scan"


def _other_scan(session: Session, data: DataSettings) -> Input:
    """Return the only scan among HDF5 slices or pictures, with its truth if that was sent."""
    inputs = find_inputs([session.tray_folder], data)
    if len(inputs) > 1:
        names = f"{inputs[0].source.case_id} and {inputs[1].source.case_id}"
        raise bad_input(f"The files are {len(inputs)} scans, such as {names}: send one at a time.")
    source: Any = inputs[0].source
    masks = {path.stem: path for path in session.tray_folder.glob("*_mask.*")}
    if hasattr(source, "mask_channels"):
        source = dataclasses.replace(source, mask_channels=data.h5_mask_channels)
    elif hasattr(source, "masks"):
        beside = [masks.get(f"{path.stem}_mask") for path in source.images]
        if beside and all(beside):
            source = dataclasses.replace(source, masks=tuple(beside))
    elif hasattr(source, "mask") and f"{source.picture.stem}_mask" in masks:
        source = dataclasses.replace(source, mask=masks[f"{source.picture.stem}_mask"])
    return dataclasses.replace(inputs[0], source=source)
