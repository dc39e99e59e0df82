"""`manifest.json`: what a store holds and how it was made, for people and programs."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from kerasseg import anatomy
from kerasseg.config import Experiment
from kerasseg.errors import UserError
from kerasseg.records.schema import FORMAT
from kerasseg.write_aside import write_aside

FILE_NAME = "manifest.json"


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
    voxels: dict[str, int]
    mean: list[float]
    std: list[float]
    files: list[str]
    file_bytes: int
    notes: list[str]


class Manifest(BaseModel):
    """The whole store: settings that made it, shards with their sizes, a row per case."""

    model_config = ConfigDict(extra="forbid")

    settings: dict[str, Any]
    fingerprint: str
    data_fingerprint: str
    data_root: str | None
    shards: dict[str, int]
    cases: list[CaseRow]

    def write(self, root: Path) -> None:
        """Write `manifest.json` into `root` in one step, a line per case."""
        head = json.dumps(self.model_dump(mode="json", exclude={"cases"}), indent=1)
        rows = ",\n  ".join(row.model_dump_json() for row in self.cases)
        text = f'{head.removesuffix("}").rstrip()},\n "cases": [\n  {rows}\n ]\n}}\n'
        with write_aside(root / FILE_NAME, "records.root") as temporary:
            temporary.write_text(text, encoding="utf-8")


def read_manifest(root: Path) -> Manifest:
    """Read the manifest of a store. Raises `UserError` if it cannot be understood."""
    path = root / FILE_NAME
    try:
        return Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path}: is no manifest of a record store ({reason}): delete the store's folder and "
            "convert again."
        ) from None


def store_settings(experiment: Experiment) -> dict[str, Any]:
    """Every setting that changes the bytes of a store, by its dotted name."""
    data = experiment.data
    settings: dict[str, Any] = {
        "format": FORMAT,
        "data.layout": data.layout,
        "data.modalities": list(data.modalities),
        "records.foreground_voxels": experiment.records.foreground_voxels,
    }
    if data.layout == "phantom":
        for key, value in data.phantom.model_dump(mode="json").items():
            settings[f"data.phantom.{key}"] = value
    if data.layout == "brats_nifti":
        label_map = data.label_map or anatomy.BRATS_LABEL_MAP
        settings["data.label_map"] = {str(k): v for k, v in sorted(label_map.items())}
    if data.layout == "brats_h5":
        settings["data.h5_image_channels"] = list(data.h5_image_channels)
        settings["data.h5_mask_channels"] = list(data.h5_mask_channels)
        settings["data.h5_slices"] = data.h5_slices
    return settings


def fingerprint(values: Any) -> str:
    """A short hash of anything JSON can hold."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
