"""`search.space` of a tune file -> parameters, with messages for people."""

import difflib
import json
from collections.abc import Mapping
from typing import Any

from kerasseg.config_mistakes import show
from kerasseg.errors import UserError
from kerasseg.tuning.parameter import Parameter, same

_KINDS = ("choice", "int", "float", "boolean")
_OPTIONS: dict[str, tuple[str, ...]] = {
    "choice": ("when",),
    "boolean": ("when",),
    "int": ("log", "step", "when"),
    "float": ("log", "step", "when"),
}
_EXAMPLES = (
    "{choice: [1, 2, 4]}, {int: [1, 8]}, {float: [1.0e-4, 1.0e-3], log: true} or {boolean: true}"
)
_REFUSED = {
    "run": "trials are named, seeded and kept by the search",
    "data": "all trials share one record store, so that their scores can be compared",
    "records": "all trials share one record store",
    "split": "scores on different patients cannot be compared",
    "training.epochs": "set search.epochs instead",
    "training.devices": "search.parallel and --gpu place the trials",
    "training.strategy": "search.parallel and --gpu place the trials",
    "training.callbacks": "it does not belong to what is compared",
    "training.early_stopping_patience": "set search.patience instead",
    "training.score_smoothing": "scores smoothed in different ways cannot be compared",
    "training.validate_volumes_every": "it does not belong to what is compared",
}


def read_space(entries: Mapping[str, Any], where: str, tuner: str) -> tuple[Parameter, ...]:
    """The parameters, each after those that it depends on.

    Raises `UserError` that names `where`, the entry, what was found and what is expected. Whether
    the settings exist and take the values is `check_space`'s to say.
    """
    found = {name: _read(name, entry, where, tuner) for name, entry in entries.items()}
    for parameter in found.values():
        _check_conditions(parameter, found, where)
    return tuple(_parents_first(found, where))


def _read(name: str, entry: Any, where: str, tuner: str) -> Parameter:
    place = f"{where}: search.space: {name}"
    for refused, why in _REFUSED.items():
        if name == refused or name.startswith(f"{refused}."):
            raise UserError(f"{place} cannot be searched: {why}.")
    if not isinstance(entry, dict):
        raise UserError(f"{place}: found {show(entry)}, expected {_EXAMPLES}.")
    kinds = [kind for kind in _KINDS if kind in entry]
    if len(kinds) != 1:
        what = f"both {' and '.join(kinds)}" if kinds else f"keys {', '.join(map(str, entry))}"
        near = [m for key in entry for m in difflib.get_close_matches(str(key), _KINDS, n=1)]
        hint = f" Did you mean {near[0]}?" if near and not kinds else ""
        raise UserError(f"{place}: found {what}, expected {_EXAMPLES}.{hint}")
    (kind,) = kinds
    unknown = [key for key in entry if key != kind and key not in _OPTIONS[kind]]
    if unknown:
        raise UserError(
            f"{place}: unknown option {unknown[0]} of {kind}. Known: {', '.join(_OPTIONS[kind])}."
        )
    when = _read_when(entry.get("when", {}), place)
    if kind == "choice":
        return Parameter(name, "choice", choices=_read_choices(entry[kind], place), when=when)
    if kind == "boolean":
        if entry[kind] is not True:
            raise UserError(
                f"{place}: found boolean: {json.dumps(entry[kind])}, expected {{boolean: true}}, "
                "which tries true and false."
            )
        return Parameter(name, "boolean", choices=(False, True), when=when)
    return _read_range(name, kind, entry, place, tuner, when)


def _read_choices(values: Any, place: str) -> tuple[Any, ...]:
    if not isinstance(values, list) or len(values) < 2:
        raise UserError(f"{place}: found {show(values)}, expected a choice of two or more values.")
    for index, value in enumerate(values):
        if any(same(value, other) for other in values[:index]):
            raise UserError(f"{place}: {json.dumps(value)} is there twice: leave one out.")
    return tuple(values)


def _read_range(
    name: str,
    kind: Any,
    entry: Mapping[str, Any],
    place: str,
    tuner: str,
    when: Mapping[str, tuple[Any, ...]],
) -> Parameter:
    ends, log, step = entry[kind], entry.get("log", False), entry.get("step")
    numbers = "whole numbers" if kind == "int" else "numbers"
    is_number = _is_whole if kind == "int" else _is_number
    if not (isinstance(ends, list) and len(ends) == 2 and all(is_number(end) for end in ends)):
        raise UserError(
            f"{place}: found {show(ends)}, expected the lowest and the highest of the {numbers}, "
            f"such as {kind}: {'[1, 8]' if kind == 'int' else '[1.0e-4, 1.0e-3]'}."
        )
    if ends[0] >= ends[1]:
        raise UserError(f"{place}: the lowest, {ends[0]}, must be under the highest, {ends[1]}.")
    if not isinstance(log, bool):
        raise UserError(f"{place}: log: found {show(log)}, expected true or false.")
    if log and ends[0] <= 0:
        raise UserError(f"{place}: with log the lowest must be above 0, found {ends[0]}.")
    if step is not None and (not is_number(step) or step <= (1 if log else 0)):
        kind_of_step = "above 1, as log multiplies by it" if log else "above 0"
        raise UserError(
            f"{place}: step: found {show(step)}, expected one of {numbers}, {kind_of_step}."
        )
    if tuner == "grid" and step is None and (kind == "float" or log):
        raise UserError(
            f"{place}: a grid needs to know which values: give a step (with log: what it is "
            "multiplied by), or a choice."
        )
    return Parameter(name, kind, (), ends[0], ends[1], step, log, when)


def _read_when(when: Any, place: str) -> dict[str, tuple[Any, ...]]:
    if not isinstance(when, dict) or not all(isinstance(name, str) for name in when):
        raise UserError(
            f"{place}: when: found {show(when)}, expected another searched setting with its value "
            "or a list of its values, such as {optimizer.name: sgd}."
        )
    return {name: tuple(v) if isinstance(v, list) else (v,) for name, v in when.items()}


def _check_conditions(parameter: Parameter, found: Mapping[str, Parameter], where: str) -> None:
    for parent, values in parameter.when.items():
        place = f"{where}: search.space: {parameter.name}: when: {parent}"
        if parent not in found or parent == parameter.name:
            others = ", ".join(name for name in found if name != parameter.name) or "none"
            raise UserError(
                f"{place} is not searched itself, so it cannot decide: name one of search.space "
                f"({others}), or leave when out."
            )
        if found[parent].kind == "float":
            raise UserError(f"{place} is a float, of which no value comes twice: use a choice.")
        if not values:
            raise UserError(f"{place} names no value.")
        for value in values:
            if not found[parent].has(value):
                raise UserError(
                    f"{place}: {json.dumps(value)} is none of its values "
                    f"({_values(found[parent])})."
                )


def _values(parameter: Parameter) -> str:
    if parameter.kind == "int" and (parameter.finite is None or len(parameter.finite) > 8):
        return f"{parameter.lowest} to {parameter.highest}"
    return ", ".join(json.dumps(value) for value in parameter.finite or ())


def _parents_first(found: Mapping[str, Parameter], where: str) -> list[Parameter]:
    ordered: list[Parameter] = []
    left = dict(found)
    while left:
        names = {parameter.name for parameter in ordered}
        ready = [p for p in left.values() if set(p.when) <= names]
        if not ready:
            raise UserError(
                f"{where}: search.space: {' and '.join(left)} depend on each other by when: leave "
                "one of these out."
            )
        ordered += ready
        left = {name: p for name, p in left.items() if p not in ready}
    return ordered


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
