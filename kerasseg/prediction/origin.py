"""`predictions.json`: by what the predictions in a folder were made."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c

from kerasseg import __version__
from kerasseg.errors import UserError, storage_error
from kerasseg.write_aside import write_aside

if TYPE_CHECKING:  # it starts TensorFlow, and claiming a folder needs none
    from kerasseg.prediction.model import Model

FILE_NAME = "predictions.json"
_MUST_MATCH = ("networks", "combine", "settings", "labels")
_SHOWN = {"networks": "runs"}
"""Of networks there are only check sums; what they are called is said instead."""


def origin_of(model: "Model", settings: list[str], labels: str | None) -> dict[str, Any]:
    """What changes a prediction.

    settings: the overrides
    labels:   the convention of ids that was asked for
    """
    checkpoints = [run.folder / "checkpoints" / "best.keras" for run in model.runs]
    return {
        "kerasseg": __version__,
        "runs": [str(run.folder) for run in model.runs],
        "networks": [f"{google_crc32c.value(path.read_bytes()):08x}" for path in checkpoints],
        "combine": model.combine,
        "target": model.target,
        "settings": sorted(settings),
        "labels": labels,
    }


def claim_folder(folder: Path, origin: dict[str, Any], *, overwrite: bool) -> None:
    """Make the folder if it is missing and write `origin` into it.

    Raises `UserError` if there are predictions that something else made, unless `overwrite`.
    """
    path = folder / FILE_NAME
    if path.is_file() and not overwrite:
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
            other = [key for key in _MUST_MATCH if there.get(key) != origin[key]]
        except (OSError, ValueError, AttributeError):
            other, there = ["runs"], {"runs": "that cannot be read"}
        if other:
            words = [f"{_SHOWN.get(key, key)} {there.get(_SHOWN.get(key, key))}" for key in other]
            raise UserError(
                f"{folder} holds predictions that were made otherwise (with "
                f"{', '.join(words)}): name another folder with --output, or make them anew with "
                "--overwrite."
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, f"Making the folder {folder}", "--output") from error
    with write_aside(path, "--output") as temporary:
        temporary.write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
