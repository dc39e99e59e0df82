"""Everything a run needs to go on after a stop, in one file."""

import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasseg.errors import UserError
from kerasseg.write_aside import write_aside

FILE_NAME = "state.npz"


@dataclass
class Progress:
    """How far a run has come: finished epochs, the best validation Dice so far, and the epoch after
    which the learning rate last fell on a plateau."""

    epochs: int = 0
    best_score: float = float("-inf")
    best_epoch: int = 0
    stopped_early: bool = False
    reduced_epoch: int = 0


def save_state(path: Path, model: keras.Model, progress: Progress) -> None:
    """Write weights, dropout's random states, optimiser slots and progress, aside first and then in
    one rename."""
    arrays = {f"w{i}": np.asarray(v) for i, v in enumerate(model.variables)}
    arrays |= {f"o{i}": np.asarray(v) for i, v in enumerate(model.optimizer.variables)}
    arrays["progress"] = np.array(json.dumps(asdict(progress)))
    with write_aside(path, "run.root") as temporary:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]


def load_state(path: Path, model: keras.Model) -> Progress:
    """Put weights and optimiser slots of `path` into `model`; its optimizer must be built.

    Raises `UserError` when the file is damaged or of another network.
    """
    try:
        with np.load(path) as arrays:
            progress = Progress(**json.loads(str(arrays["progress"])))
            _assign(model.variables, "w", arrays, path)
            _assign(model.optimizer.variables, "o", arrays, path)
    except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{path}: cannot be read as the state of a run ({error}): start again without --resume."
        ) from None
    return progress


def _assign(variables: list[Any], prefix: str, arrays: Any, path: Path) -> None:
    stored = sum(1 for name in arrays.files if name.startswith(prefix) and name[1:].isdigit())
    if stored != len(variables):
        raise UserError(
            f"{path}: holds {stored} arrays, this network and optimiser have {len(variables)}: "
            "the run was made with another model; start again without --resume."
        )
    for index, variable in enumerate(variables):
        variable.assign(arrays[f"{prefix}{index}"])
