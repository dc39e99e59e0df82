"""The state of a run that goes on after a stop: weights, optimiser and progress in one file."""

import json
import math
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kerasseg.errors import UserError
from kerasseg.files import atomic_write
from kerasseg.training.step import TrainingModel

FILE_NAME = "state.npz"


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        epochs: Finished epochs.
        best_score: Highest smoothed validation Dice so far, which was that of `best_epoch`.
        best_epoch: Epoch of the best score, from 1.
        stopped_early: Whether early stopping ended the run.
        reduced_epoch: Epoch after which the learning rate last fell on a plateau.
        step: Updates done of the unfinished epoch.
        logs: Metrics of the unfinished epoch, once all its updates are done.
        score_sum: Running sum of the smoothed validation Dice.
        counts_patches: Whether an epoch has the patches of every case, and not as many batches as
            earlier versions made of them.
    """

    epochs: int = 0
    best_score: float = float("-inf")
    best_epoch: int = 0
    stopped_early: bool = False
    reduced_epoch: int = 0
    step: int = 0
    logs: dict[str, float] = field(default_factory=dict)
    score_sum: float = 0.0
    counts_patches: bool = False


def save_state(
    path: Path, model: TrainingModel, progress: Progress, *, writing: bool = True
) -> None:
    """Write weights, states of dropout, optimiser slots, loss scale, progress, in one step.

    Within an epoch its metrics are written, too. As metrics are summed over machines, all of them
    must call this; one is `writing`.
    """
    arrays = {
        f"{prefix}{index}": np.asarray(variable.numpy())
        for prefix, variables in _parts(model, progress).items()
        for index, variable in enumerate(variables)
    }
    arrays["progress"] = np.array(json.dumps(asdict(progress)))
    if not writing:
        return
    with atomic_write(path, "run.root") as temporary:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]


def load_state(path: Path, model: TrainingModel | None) -> Progress:
    """Load what `save_state` wrote into a model whose optimizer is built; None: into nothing.

    Returns how far the run has come. Raises `UserError` if the file is damaged or of another
    network.
    """
    try:
        with np.load(path) as arrays:
            progress = Progress(**json.loads(str(arrays["progress"])))
            for prefix, variables in _parts(model, progress).items() if model else ():
                _assign(variables, prefix, arrays, path)
    except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{path}: cannot be read as the state of a run ({error}): start again without --resume."
        ) from None
    return progress


def _parts(model: TrainingModel, progress: Progress) -> dict[str, list[Any]]:
    """Return the variables of a run by the prefix of their names in the file."""
    parts = {"w": model.variables, "o": model.optimizer.variables, "s": model.loss_scale.variables}
    return parts | {"m": model.metrics_variables} if progress.step else parts


def _assign(variables: list[Any], prefix: str, arrays: Any, path: Path) -> None:
    stored = sum(1 for name in arrays.files if name.startswith(prefix) and name[1:].isdigit())
    found = [arrays[f"{prefix}{index}"] for index in range(stored)]
    if [a.shape for a in found] != [tuple(v.shape) for v in variables]:
        raise UserError(
            f"{path}: holds {stored} arrays ({sum(a.size for a in found):,} numbers), this network "
            f"and optimiser have {len(variables)} ({sum(math.prod(v.shape) for v in variables):,} "
            "numbers) or others in shape: the run was made with another model; start again without "
            "--resume."
        )
    for variable, array in zip(variables, found, strict=True):
        variable.assign(array)
