"""A search on TensorBoard's HParams page."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.plugins.hparams import summary_v2 as hparams

from kerasseg.training.tensorboard import hparam_value, hparams_events, write_hparams
from kerasseg.tuning.search import Search
from kerasseg.tuning.trials import TrialRecord


def log_search(search: Search) -> None:
    """Write what is searched into the folder of the search, on which TensorBoard is started."""
    if not any(search.folder.glob("*.hparams_config")):
        write_hparams_config(search.folder, _space(search), search.settings.objective)


def log_trial(search: Search, record: TrialRecord) -> None:
    """Write a trial that is done beside the curves of its runs."""
    if not record.is_done or record.is_baseline:
        return
    for execution in record.executions:
        scores = {} if execution.score is None else {search.settings.objective: execution.score}
        folder = search.folder / execution.run / "tensorboard"
        name = f"{record.number:04d}"  # TensorBoard sorts names as text.
        write_hparams(folder, record.values, scores, name, _space(search), record.status)


def _space(search: Search) -> dict[str, Any]:
    return dict(json.loads(search.settings.model_dump_json())["space"])


def write_hparams_config(folder: Path, space: Mapping[str, Any], metric: str) -> None:
    """Write what is searched into `folder`, the one that TensorBoard is started on.

    Args:
        space: `search.space` of `search.yaml`.
        metric: name of the objective in the logs.
    """
    searched = [
        hparams.HParam(name, _domain(entry), display_name=name) for name, entry in space.items()
    ]
    measured = [hparams.Metric(metric, display_name=metric)]
    with hparams_events(folder, ".hparams_config") as write:
        write(hparams.hparams_config_pb(searched, measured), 0)


def _domain(entry: Mapping[str, Any]) -> Any:
    if "boolean" in entry:
        return hparams.Discrete([False, True], dtype=bool)
    if "int" in entry:
        low, high = entry["int"]
        return hparams.IntInterval(int(low), int(high))
    if "float" in entry:
        low, high = entry["float"]
        # TensorBoard keeps no scale; its page has a logarithmic one to choose for every column.
        return hparams.RealInterval(float(low), float(high))
    return hparams.Discrete([hparam_value(choice, entry["choice"]) for choice in entry["choice"]])
