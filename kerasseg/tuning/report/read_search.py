"""Read a search's folder."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from kerasseg.errors import UserError
from kerasseg.tuning.report.parameter import Parameter, same
from kerasseg.tuning.report.search import Search
from kerasseg.tuning.report.trial import STATUSES, Execution, Trial

_DIRECTIONS = ("max", "min")
_KINDS = ("choice", "int", "float", "boolean")


def read_search(folder: Path) -> Search:
    """Read `search.yaml` and `trials/*.json` of a search that runs or has ended.

    Raises `UserError`, naming the file, for a folder that is none of a search, one without trials,
    and a file that does not say what it should.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder}: there is no such folder; name the one that the search wrote, with "
            "search.yaml and trials/ in it."
        )
    path = folder / "search.yaml"
    content = _content(path)
    settings = dict(content["search"])
    objective = _named(settings, "objective", path)
    direction = _named(settings, "direction", path)
    if direction not in _DIRECTIONS:
        raise UserError(f"{path}: search.direction is {direction!r}, expected max or min.")
    space = settings.get("space")
    if not isinstance(space, Mapping) or not space:
        raise UserError(f"{path}: search.space is {space!r}, expected settings and their ranges.")
    parameters = [_parameter(name, entry, path) for name, entry in space.items()]
    # A hidden one is being written.
    files = [file for file in folder.glob("trials/*.json") if not file.name.startswith(".")]
    if not files:
        raise UserError(
            f"{folder / 'trials'}: no trial is there yet; look again when the first one has begun."
        )
    trials = sorted((_trial(file, folder) for file in files), key=lambda trial: trial.number)
    trials = [_with_values_of_base(trial, parameters, content) for trial in trials]
    moments = [moment for trial in trials for moment in (trial.started, trial.ended)]
    moments += [t.started + 60 * t.minutes for t in trials if t.status == "running"]
    return Search(
        folder=folder,
        name=str(settings.get("name") or folder.resolve().name),
        objective=objective,
        direction=direction,
        tuner=str(settings.get("tuner") or "unknown"),
        settings=settings,
        parameters=tuple(_with_values_of(trials, parameter) for parameter in parameters),
        trials=tuple(trials),
        until=max((moment for moment in moments if not math.isnan(moment)), default=0.0),
    )


def _content(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path}: there is no such file, so {path.parent} is no folder of a search; name one "
            "that python tune.py wrote."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as YAML: {error}") from error
    section = content.get("search") if isinstance(content, Mapping) else None
    if not isinstance(section, Mapping):
        raise UserError(f"{path}: expected a section search, found {type(section).__name__}.")
    return dict(content)


def _named(settings: Mapping[str, Any], key: str, path: Path) -> str:
    value = settings.get(key)
    if not isinstance(value, str) or not value:
        raise UserError(f"{path}: search.{key} is {value!r}, expected a name.")
    return value


def _parameter(name: str, entry: Any, path: Path) -> Parameter:
    kind = next((k for k in _KINDS if isinstance(entry, Mapping) and entry.get(k) is not None), "")
    wrong = UserError(
        f"{path}: search.space.{name} is {entry!r}, expected one of choice: [values], int: [low, "
        "high], float: [low, high] or boolean: true."
    )
    if not kind:
        raise wrong
    given, when = entry[kind], entry.get("when") or None
    if kind == "boolean":
        return Parameter(name, kind, (False, True), when=when)
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise wrong
    if kind == "choice":
        return Parameter(name, kind, tuple(given), when=when)
    if len(given) != 2 or not all(isinstance(x, int | float) for x in given):
        raise wrong
    low, high = sorted(map(float, given))
    log = bool(entry.get("log"))
    if log and low <= 0:
        raise UserError(f"{path}: search.space.{name} is logarithmic and begins at {low:g}.")
    return Parameter(name, kind, low=low, high=high, log=log, when=when)


def _with_values_of_base(
    trial: Trial, parameters: Sequence[Parameter], content: Mapping[str, Any]
) -> Trial:
    """The baseline is written without values: they are those of the base, as it is written or by
    default."""
    if not trial.is_baseline or trial.values:
        return trial
    values: dict[str, Any] = {}
    for parameter in parameters:
        for source in (content.get("base"), content.get("experiment")):
            found = _setting_of(source, parameter.name)
            if found is not None:
                values[parameter.name] = found
                break
    used = {p.name: values[p.name] for p in parameters if p.name in values and p.is_used(values)}
    return replace(trial, values=used)


def _setting_of(source: Any, name: str) -> Any:
    for part in name.split("."):
        source = source.get(part) if isinstance(source, Mapping) else None
    return source


def _with_values_of(trials: Sequence[Trial], parameter: Parameter) -> Parameter:
    """Wide enough for the baseline, which need not lie in the space."""
    values = [t.values[parameter.name] for t in trials if parameter.name in t.values]
    if parameter.is_category:
        choices = list(parameter.choices)
        for value in values:
            if not any(same(value, choice) for choice in choices):
                choices.append(value)
        return replace(parameter, choices=tuple(choices))
    numbers = [n for n in map(parameter.number, values) if math.isfinite(n)]
    return replace(
        parameter,
        low=min([parameter.low, *numbers]),
        high=max([parameter.high, *numbers]),
    )


def _trial(path: Path, folder: Path) -> Trial:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not readable as JSON: {error}. Remove the file to leave the trial out."
        ) from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: expected the keys of a trial, found {type(content).__name__}.")
    status = content.get("status")
    if status not in STATUSES:
        raise UserError(
            f"{path}: unknown status {status!r}, expected one of {', '.join(STATUSES)}."
        )
    try:
        return Trial(
            trial_id=str(content["trial_id"]),
            number=int(content["number"]),
            status=status,
            reason=str(content.get("reason") or ""),
            score=_number(content.get("score")),
            values=dict(content["values"]),
            executions=tuple(_execution(e, folder) for e in content.get("executions") or ()),
            started=_number(content.get("started")),
            ended=_number(content.get("ended")),
            worker=str(content.get("worker") or ""),
            bracket=_whole(content.get("bracket")),
            round=_whole(content.get("round")),
            epochs_to=_whole(content.get("epochs_to")),
            continued_from=content.get("continued_from"),
        )
    except KeyError as error:
        raise UserError(f"{path}: the key {error} of a trial is missing.") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: a value is not what a trial has there: {error}.") from error


def _execution(content: Mapping[str, Any], folder: Path) -> Execution:
    run = content.get("run")
    return Execution(
        run=folder / run if run else None,
        score=_number(content.get("score")),
        epochs=int(content.get("epochs") or 0),
        minutes=float(content.get("minutes") or 0.0),
        curve=tuple(_number(value) for value in content.get("curve") or ()),
        peak_memory_gib=_number(content.get("peak_memory_gib")),
    )


def _number(value: Any) -> float:
    """NaN for what is missing or not finite: neither can be ranked or drawn."""
    number = float("nan") if value is None else float(value)
    return number if math.isfinite(number) else float("nan")


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)
