"""`search.space` of a tune file -> parameters, with messages for people.

One searched setting.

Whether experiments take what a search may try, known before the first trial.

Parameters of a search <-> KerasTuner's hyperparameters.
"""

import difflib
import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from keras_tuner import HyperParameters

from kerasseg.config.experiment import Experiment
from kerasseg.config.load import make_experiment
from kerasseg.config.messages import show
from kerasseg.errors import UserError

Value = Any
"""What a setting may have: a number, text, true or false, null, or a list or section of these."""


@dataclass(frozen=True)
class Parameter:
    """A setting by its dotted name, and the values that are tried.

    choices:  of a choice and boolean
    lowest, highest: of an int or float, both included; `step` from one value to the next, with
              `log` what it is multiplied by; None: any value between
    when:     names of other parameters -> their values with which this one is searched at all
    """

    name: str
    kind: Literal["choice", "int", "float", "boolean"]
    choices: tuple[Value, ...] = ()
    lowest: float = 0
    highest: float = 0
    step: float | None = None
    log: bool = False
    when: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)

    @property
    def is_category(self) -> bool:
        """Whether its values have no scale."""
        return self.kind in ("choice", "boolean")

    @cached_property
    def finite(self) -> tuple[Value, ...] | None:
        """Every value that is tried; None where any number between two may be.

        Of a range with a step the highest is there if a step leads to it.
        """
        if self.is_category:
            return self.choices
        if self.step is None and (self.kind == "float" or self.log):
            return None
        return tuple(self._stepped(self.step or 1))

    def _stepped(self, step: float) -> Iterator[float]:
        # Not by KerasTuner, to whom 0 to 0.5 in steps of 0.1 are five values.
        for index in itertools.count():
            value = self.lowest * step**index if self.log else self.lowest + index * step
            if value > self.highest * (1 + 1e-9):
                return
            yield int(value) if self.kind == "int" else float(f"{value:.6g}")

    @property
    def ends(self) -> tuple[Value, ...]:
        """Every value of a choice or boolean; the lowest and the highest of a range."""
        if self.is_category:
            return self.choices
        return (self.lowest, self.finite[-1] if self.finite else self.highest)

    def has(self, value: Value) -> bool:
        """Whether this value is among those tried."""
        if self.finite is not None:
            return any(same(value, other) for other in self.finite)
        right_type = isinstance(value, int) and not isinstance(value, bool)
        return self.kind == "int" and right_type and self.lowest <= value <= self.highest

    def is_active(self, values: Mapping[str, Value]) -> bool:
        """Whether the other parameters, with these values, let this one be searched."""
        return all(
            name in values and any(same(values[name], other) for other in allowed)
            for name, allowed in self.when.items()
        )

    def number(self, value: Value) -> float:
        """Place of a value on an axis, in its own unit or the index of a choice; NaN where it has
        none."""
        if self.is_category:
            return next((float(n) for n, c in enumerate(self.choices) if same(c, value)), math.nan)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return math.nan
        return math.nan if self.log and value <= 0 else float(value)

    def scaled(self, numbers: Sequence[float] | np.ndarray) -> np.ndarray:
        """Of `number`: from 0 to 1 over the space, in the logarithm where it is searched so."""
        found = np.asarray(numbers, dtype=float)
        if self.is_category:
            return found / (len(self.choices) - 1)
        low, high = self.lowest, self.highest
        if self.log:
            found, low, high = np.log(found), math.log(low), math.log(high)
        return (found - low) / (high - low)


def same(one: Value, other: Value) -> bool:
    """Equal, and of one type: true is not 1."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


_MOST = 300
"""Combinations that are tried; each takes a few milliseconds."""


def with_values(base: Mapping[str, Any], values: Mapping[str, Any], *more: str) -> Experiment:
    """The base experiment (as written) with searched values, and further overrides.

    Raises `UserError` if it takes them not.
    """
    overrides = [f"{name}={json.dumps(value)}" for name, value in values.items()]
    return make_experiment(json.loads(json.dumps(base)), [*overrides, *more])


def check_space(space: Sequence[Parameter], base: Mapping[str, Any], where: str) -> list[str]:
    """Raise `UserError` for a parameter that is no setting, and for a value that is refused
    whatever the others are.

    Every choice and both ends of every range are tried in every combination, or in as many drawn
    ones as `_MOST`. Combinations that are refused though each of their values is fine with others
    come back as a list of messages; as trials they would fail.
    """
    fine: dict[str, list[Any]] = {parameter.name: [] for parameter in space}
    refused: list[tuple[dict[str, Any], str]] = []
    for values in _combinations(space):
        try:
            with_values(base, values)
        except UserError as error:
            refused.append((values, str(error)))
        else:
            for name, value in values.items():
                fine[name].append(value)
    bad = [
        _why(parameter, value, refused)
        for parameter in space
        for value in parameter.ends
        if not any(same(value, other) for other in fine[parameter.name])
    ]
    if bad:
        # One that is wrong itself: with it all combinations may have been refused.
        _, words = next((found for found in bad if found[0]), bad[0])
        raise UserError(f"{where}: search.space: {words}")
    return [message for _, message in refused]


def _why(
    parameter: Parameter, value: Any, refused: Sequence[tuple[dict[str, Any], str]]
) -> tuple[bool, str]:
    """Whether a message speaks of this parameter, and that message or another."""
    name = parameter.name
    messages = [m for v, m in refused if name in v and same(v[name], value)]
    lines = [line for message in messages for line in message.splitlines()]
    own = next((line for line in lines if name in line), None)
    reason = (own or lines[0]).removeprefix("override: ")
    return own is not None, f"{name}: {json.dumps(value)} cannot be tried: {reason}"


def _combinations(space: Sequence[Parameter]) -> Iterator[dict[str, Any]]:
    count = 1
    for parameter in space:
        count *= len(parameter.ends)
    if count <= _MOST:
        for chosen in itertools.product(*(parameter.ends for parameter in space)):
            yield _active(space, chosen)
        return
    draw = random.Random(0)
    single = [(parameter, value) for parameter in space for value in parameter.ends]
    for _ in range(max(_MOST // len(single), 2)):
        for parameter, value in single:
            needed = _needed(parameter, space) | {parameter.name: (value,)}
            yield _active(space, [draw.choice(needed.get(p.name, p.ends)) for p in space])


def _needed(parameter: Parameter, space: Sequence[Parameter]) -> dict[str, tuple[Any, ...]]:
    """What the others may have so that this one is searched."""
    by_name = {other.name: other for other in space}
    needed: dict[str, tuple[Any, ...]] = {}
    for parent, values in parameter.when.items():
        needed |= _needed(by_name[parent], space) | {parent: values}
    return needed


def _active(space: Sequence[Parameter], chosen: Sequence[Any]) -> dict[str, Any]:
    """Only what the others let be searched."""
    values: dict[str, Any] = {}
    for parameter, value in zip(space, chosen, strict=True):
        if parameter.is_active(values):
            values[parameter.name] = value
    return values


def hyperparameters(space: Sequence[Parameter]) -> HyperParameters:
    """KerasTuner's space. Where the values can be counted it is a choice of their numbers:
    KerasTuner has no choice of lists, nor of values of different types."""
    result = HyperParameters()
    by_name = {parameter.name: parameter for parameter in space}
    for parameter in space:
        with ExitStack() as stack:
            for name, values in parameter.when.items():
                coded = [_code(by_name[name], value) for value in values]
                stack.enter_context(result.conditional_scope(name, coded))
            _add(result, parameter)
    return result


def _add(result: HyperParameters, parameter: Parameter) -> None:
    name, sampling = parameter.name, "log" if parameter.log else "linear"
    if parameter.kind == "boolean":
        result.Boolean(name)
    elif parameter.finite is not None:
        result.Choice(name, list(range(len(parameter.finite))))
    elif parameter.kind == "int":
        result.Int(name, int(parameter.lowest), int(parameter.highest), sampling=sampling)
    else:
        result.Float(name, parameter.lowest, parameter.highest, sampling=sampling)


def _code(parameter: Parameter, value: Any) -> Any:
    if parameter.kind == "boolean" or parameter.finite is None:
        return value
    return next(i for i, other in enumerate(parameter.finite) if same(value, other))


def plain_values(space: Sequence[Parameter], values: Mapping[str, Any]) -> dict[str, Any]:
    """KerasTuner's values -> those of the settings, only the ones that are searched in this trial.

    A float has six digits of single precision: gRPC carries no more, and a trial must have the very
    same values on the worker that goes on with it as on the one that began it.
    """
    return {p.name: _plain(p, values[p.name]) for p in space if p.name in values}


def _plain(parameter: Parameter, value: Any) -> Any:
    if parameter.kind == "boolean":
        return bool(value)
    if parameter.finite is not None:
        return parameter.finite[int(value)]
    if parameter.kind == "int":
        return int(value)
    single = float(np.float32(value))
    return min(max(float(f"{single:.6g}"), float(parameter.lowest)), float(parameter.highest))


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
