"""Searched values -> the experiment of one execution of a trial."""

import json
from collections.abc import Mapping
from typing import Any

from kerasseg.config import Experiment
from kerasseg.tuning.check_space import with_values
from kerasseg.tuning.search import Search


def trial_experiment(
    search: Search, values: Mapping[str, Any], trial_id: str, execution: int = 0
) -> Experiment:
    """The base experiment with `values`, as a run `trial_<id>` of the search's folder.

    Executions, counted from 0, differ in `run.seed`. All use the base's record store. Raises
    `UserError` for values that do not go together.
    """
    base, settings = search.base, search.settings
    name = f"trial_{trial_id}" + (f"_execution_{execution + 1}" if execution else "")
    fixed = {
        "run.name": name,
        "run.root": str(search.folder / "runs"),
        "run.seed": (base.run.seed + execution) % 2**31,
        "records.root": str(base.store_root),
        "training.epochs": search.epochs,
    }
    if settings.patience is not None:
        fixed["training.early_stopping_patience"] = settings.patience
    return with_values(
        search.values, values, *(f"{key}={json.dumps(value)}" for key, value in fixed.items())
    )
