"""The manifest of a store: `store.json` says how it was made, `manifest.jsonl` lists its cases."""

import contextlib
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from kerasseg.config.data import DataSettings
from kerasseg.config.experiment import Experiment
from kerasseg.datasets.case import CaseSource
from kerasseg.datasets.checks import intensity_profile
from kerasseg.errors import UserError, printable
from kerasseg.files import write_json, write_text
from kerasseg.records.schema import FORMAT

_CHUNK_BYTES = 1 << 20


class SourceFile(BaseModel):
    """A raw file as it was when converted; `name` is its path below data.root."""

    model_config = ConfigDict(extra="forbid")

    name: str
    bytes: int
    mtime_ns: int
    sha256: str


def describe(paths: Sequence[Path], root: Path | None) -> list[SourceFile]:
    """Return size, time and SHA-256 of each file. Raises `UserError` for one it cannot read."""
    files = []
    for path in paths:
        try:
            stat = path.stat()
            digest = hash_file(path)
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}.") from None
        files.append(
            SourceFile(
                name=_name(path, root), bytes=stat.st_size, mtime_ns=stat.st_mtime_ns, sha256=digest
            )
        )
    return files


def readable(paths: Sequence[Path]) -> list[Path]:
    """Return the files of a bad case that can be opened; the others may be what is wrong."""
    found = []
    for path in paths:
        with contextlib.suppress(OSError), path.open("rb"):
            found.append(path)
    return found


def unchanged(paths: Sequence[Path], root: Path | None, known: Sequence[SourceFile]) -> bool:
    """Return whether these are the files that were converted.

    Size and time of change decide. A file with another time but the same size is read, because
    copying a data set renews all times.
    """
    if [_name(path, root) for path in paths] != [file.name for file in known]:
        return False
    try:
        for path, file in zip(paths, known, strict=True):
            stat = path.stat()
            if stat.st_size != file.bytes:
                return False
            if stat.st_mtime_ns != file.mtime_ns and hash_file(path) != file.sha256:
                return False
    except OSError:
        return False
    return True


def is_current(source: CaseSource, root: Path | None, row: "CaseRow") -> bool:
    """Return whether a case's files are those that were converted, and are read as they were."""
    as_before = row.reading in ("", getattr(source, "reading", ""))
    return as_before and unchanged(source.files, root, row.files)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, which is read piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _name(path: Path, root: Path | None) -> str:
    below = path.relative_to(root) if root and path.is_relative_to(root) else path
    return printable(below.as_posix())


STORE_FILE = "store.json"
ROWS_FILE = "manifest.jsonl"
FORMAT_1_FILE = "manifest.json"
"""The file that stores of the first format had instead."""


class CaseRow(BaseModel):
    """One case of the store."""

    model_config = ConfigDict(extra="forbid")

    case_id: str
    patient_id: str
    shard: str
    offset: int
    payload_bytes: int
    checksum: int
    shape: tuple[int, int, int, int]
    full_shape: tuple[int, int, int]
    crop_offset: tuple[int, int, int]
    spacing: tuple[float, float, float]
    file_spacing: tuple[float, float, float] | None = None
    voxels: dict[str, int]
    mean: list[float]
    std: list[float]
    voxel_hash: str
    files: list[SourceFile]
    attributes: dict[str, str]
    notes: list[str]
    stored_voxels: int | None = None
    """None in stores that an older kerasseg made."""
    enhancing_id: int | None = None
    """As `Case` has it."""
    reading: str = ""
    """This is `NiftiSource.reading`; it is empty for other files, and in stores of before."""

    @property
    def stored_rows(self) -> int:
        """The rows of the record's `values`, background's included, or the most there can be."""
        return 1 + (math.prod(self.shape[:3]) if self.stored_voxels is None else self.stored_voxels)


class SkippedCase(BaseModel):
    """A case that was left out, and why (data.on_bad_case=skip)."""

    model_config = ConfigDict(extra="forbid")

    case_id: str
    patient_id: str
    reason: str
    files: list[SourceFile]


class Manifest(BaseModel):
    """The whole store: the settings that made it, its shards with their sizes, its cases."""

    model_config = ConfigDict(extra="forbid")

    settings: dict[str, Any]
    fingerprint: str
    data_fingerprint: str
    data_root: str | None
    shards: dict[str, int]
    cases: list[CaseRow]
    skipped: list[SkippedCase] = []

    def write(self, root: Path) -> None:
        """Write the rows, then `store.json`, which makes them count; each in one step."""
        rows = "".join(row.model_dump_json() + "\n" for row in self.cases)
        head = self.model_dump(mode="json", exclude={"cases"}) | {"rows_sha256": _sha256(rows)}
        write_text(root / ROWS_FILE, rows, "records.root")
        write_json(root / STORE_FILE, head, "records.root", indent=1)


def read_manifest(root: Path) -> Manifest | None:
    """Read the manifest of a store; return None where a conversion was not finished.

    Raises `UserError` if it cannot be understood, or is of an older format.
    """
    path = root / STORE_FILE
    if not path.exists():
        if (root / FORMAT_1_FILE).exists():
            raise UserError(
                f"{root}: this record store was made by an older kerasseg: convert anew in its "
                "place with kerasseg convert --overwrite."
            )
        return None
    try:
        head = json.loads(path.read_text(encoding="utf-8"))
        rows = (root / ROWS_FILE).read_text(encoding="utf-8")
        if head.pop("rows_sha256") != _sha256(rows):
            return None  # stopped between the two files
        head["cases"] = [json.loads(line) for line in rows.split("\n")[:-1]]
        return Manifest.model_validate(head)
    except (OSError, ValueError, KeyError, AttributeError, ValidationError) as error:
        raise UserError(
            f"{path}: is no manifest of a record store ({str(error).splitlines()[0]}): convert "
            "anew in its place with kerasseg convert --overwrite."
        ) from None


def read_rows(root: Path) -> list[CaseRow]:
    """Read the rows of `manifest.jsonl` alone, even where `store.json` does not vouch for them."""
    try:
        lines = (root / ROWS_FILE).read_text(encoding="utf-8").split("\n")[:-1]
        return [CaseRow.model_validate_json(line) for line in lines]
    except (OSError, ValueError):
        return []


def store_settings(experiment: Experiment) -> dict[str, Any]:
    """Return every setting that changes the bytes of a store, by its dotted name."""
    data = experiment.data
    values = data.model_dump(mode="json")
    keys = ["layout", "modalities", "classes", "spacing"]
    if data.spacing is not None:
        keys.append("interpolation")
    if data.size is not None:
        keys.append("size")
    if not data.skull_stripped:  # stores of before do not name it
        keys.append("skull_stripped")
    if data.normalisation != "z_score":
        keys.append("normalisation")
    keys += data.facts.settings
    settings: dict[str, Any] = {"format": FORMAT}
    for key in keys:
        if isinstance(values[key], dict):
            settings |= {f"data.{key}.{name}": value for name, value in values[key].items()}
        else:
            settings[f"data.{key}"] = values[key]
    label_map = data.label_map or data.facts.label_map
    if label_map:
        settings["data.label_map"] = {str(k): v for k, v in sorted(label_map.items())}
    for key in ("foreground_voxels", "compression"):
        settings[f"records.{key}"] = getattr(experiment.records, key)
    return settings


def fingerprint(values: Any) -> str:
    """Return a short hash of anything that JSON can hold."""
    return _sha256(json.dumps(values, sort_keys=True))[:16]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def intensities(manifest: Manifest) -> list[list[list[float]]]:
    """Return mean and standard deviation (C, 2) of `intensity_profile` over the scans."""
    rows = manifest.cases
    profiles = intensity_profile(
        np.array([row.mean for row in rows]), np.array([row.std for row in rows])
    )
    # A z-scored scan has no profile, which JSON cannot say with a number.
    if not np.isfinite(profiles).all():
        return []
    return [profiles.mean(axis=0).tolist(), profiles.std(axis=0).tolist()]


def voxel_sizes(data: DataSettings, manifest: Manifest) -> list[list[float]] | None:
    """Return the smallest and the largest voxel size (D, H, W) in mm of the scans' own files.

    None where the files do not tell, or an older kerasseg has resampled them.
    """
    rows = manifest.cases
    resampled = data.spacing is not None
    if not data.facts.knows_spacing or (resampled and any(not r.file_spacing for r in rows)):
        return None
    axes = list(zip(*(row.file_spacing or row.spacing for row in rows), strict=True))
    return [[min(axis) for axis in axes], [max(axis) for axis in axes]]
