"""A search on TensorBoard's HParams page."""

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.plugins.hparams import summary_v2 as hparams
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from kerasseg.errors import storage_error
from kerasseg.tuning.search import Search
from kerasseg.tuning.trials import TrialRecord

_STATUS = {
    "completed": api_pb2.STATUS_SUCCESS,
    "stopped": api_pb2.STATUS_SUCCESS,
    "failed": api_pb2.STATUS_FAILURE,
    "running": api_pb2.STATUS_RUNNING,
}


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
    with _events(folder, ".hparams_config") as write:
        write(hparams.hparams_config_pb(searched, measured), 0)


def write_hparams(
    folder: Path,
    values: Mapping[str, Any],
    metrics: Mapping[str, float],
    trial_id: str,
    space: Mapping[str, Any] | None = None,
    status: str = "completed",
) -> None:
    """Write one execution of a trial into `folder`, the `tensorboard` of its run.

    TensorBoard averages the executions of one trial. Lists are written as text, and with `space` so
    is every value of a choice among values of several types. A metric that is not finite is left
    out.

    Args:
        status: completed, stopped, failed or running.
    """
    choices = {name: entry.get("choice") for name, entry in (space or {}).items()}
    written = {name: _value(value, choices.get(name)) for name, value in values.items()}
    with _events(folder, ".hparams") as write:
        write(hparams.hparams_pb(written, trial_id), 0)
        for name, value in metrics.items():
            if math.isfinite(value):
                scalar = summary_pb2.Summary.Value(tag=name, simple_value=value)
                write(summary_pb2.Summary(value=[scalar]), 0)
        if status != "running":
            write(_session_end(_STATUS[status]), 0)


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
    return hparams.Discrete([_value(choice, entry["choice"]) for choice in entry["choice"]])


def _value(value: Any, choices: Any = None) -> bool | float | str:
    """Return a value as TensorBoard stores it; all values of a parameter must be of one type."""
    kinds = {_kind(choice) for choice in choices or [value]} | {_kind(value)}
    if kinds == {"boolean"}:
        return bool(value)
    if kinds == {"number"}:
        return float(value)
    return value if isinstance(value, str) else json.dumps(value)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else "string"


def _session_end(status: int) -> summary_pb2.Summary:
    """Return the summary that ends a session.

    `summary_v2` has no function for it, and that of `summary` needs TensorFlow.
    """
    content = plugin_data_pb2.HParamsPluginData(
        session_end_info=plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
    )
    value = summary_pb2.Summary.Value(
        tag=metadata.SESSION_END_INFO_TAG,
        metadata=metadata.create_summary_metadata(content),
        tensor=metadata.NULL_TENSOR,
    )
    return summary_pb2.Summary(value=[value])


@contextmanager
def _events(folder: Path, suffix: str) -> Iterator[Any]:
    """Yield a function that writes a summary of a step into a new event file of `folder`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writer = EventFileWriter(str(folder), filename_suffix=suffix)
    except OSError as error:
        raise storage_error(
            error, f"Writing TensorBoard's files in {folder}", "run.root"
        ) from error
    try:
        yield lambda summary, step: writer.add_event(
            event_pb2.Event(summary=summary, step=step, wall_time=time.time())
        )
    finally:
        writer.close()
