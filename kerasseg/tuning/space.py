"""The space of a search: its parameters as `search.space` of a tune file describes them, the
experiments that they make, and their values as KerasTuner has them."""

import difflib
import itertools
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kerasseg.config.experiment import Experiment
from kerasseg.config.load import make_experiment
from kerasseg.config.messages import show
from kerasseg.errors import UserError

if TYPE_CHECKING:
    from keras_tuner import HyperParameters

Value = Any
"""The value of a setting: a number, text, true or false, null, or a list or section of these."""


@dataclass(frozen=True)
class Parameter:
    """A searched setting, and the values that are tried.

    Attributes:
        name: the setting's dotted name.
        choices: the values of a choice or boolean.
        lowest, highest: the ends of an int or float, both included.
        step: from one value to the next, with `log` the factor between them; None lets any value
            between the ends be tried.
        when: names of other parameters -> their values with which this one is searched at all.
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
        """True if its values have no scale."""
        return self.kind in ("choice", "boolean")

    @cached_property
    def finite(self) -> tuple[Value, ...] | None:
        """Every value that is tried, or None where any number between two may be.

        The highest value of a range with a step is tried if a step leads to it.
        """
        if self.is_category:
            return self.choices
        if self.step is None and (self.kind == "float" or self.log):
            return None
        return tuple(self._stepped(self.step or 1))

    def _stepped(self, step: float) -> Iterator[float]:
        # KerasTuner's own steps lose the end: 0 to 0.5 in steps of 0.1 are five values to it.
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
        """Return whether this value is among those tried."""
        if self.finite is not None:
            return any(same(value, other) for other in self.finite)
        return self.kind == "int" and _is_whole(value) and self.lowest <= value <= self.highest

    def is_active(self, values: Mapping[str, Value]) -> bool:
        """Return whether the other parameters, with these values, let this one be searched."""
        return all(
            name in values and any(same(values[name], other) for other in allowed)
            for name, allowed in self.when.items()
        )

    def number(self, value: Value) -> float:
        """Return the place of a value on an axis: the number itself, or the index of a choice.

        NaN where it has no place.
        """
        if self.is_category:
            return next((float(n) for n, c in enumerate(self.choices) if same(c, value)), math.nan)
        if not _is_number(value):
            return math.nan
        return math.nan if self.log and value <= 0 else float(value)

    def scaled(self, numbers: Sequence[float] | np.ndarray) -> np.ndarray:
        """Scale what `number` returns to 0 to 1 over the space, by logarithms where `log` is."""
        found = np.asarray(numbers, dtype=float)
        if self.is_category:
            return found / (len(self.choices) - 1)
        low, high = self.lowest, self.highest
        if self.log:
            found, low, high = np.log(found), math.log(low), math.log(high)
        return (found - low) / (high - low)


def same(one: Value, other: Value) -> bool:
    """Return whether two values are equal and of one type: true is not 1."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def combinations(
    space: Sequence[Parameter], values_of: Callable[[Parameter], Sequence[Value]]
) -> Iterator[dict[str, Value]]:
    """Yield every combination of the parameters' values, in order; the last one changes first.

    A combination lacks the parameters that the others do not let be searched.
    """

    def extend(chosen: dict[str, Value], rest: Sequence[Parameter]) -> Iterator[dict[str, Value]]:
        if not rest:
            yield chosen
        elif not rest[0].is_active(chosen):
            yield from extend(chosen, rest[1:])
        else:
            for value in values_of(rest[0]):
                yield from extend({**chosen, rest[0].name: value}, rest[1:])

    return extend({}, space)


# Reading search.space.

_OPTIONS = {
    "choice": ("when",),
    "int": ("log", "step", "when"),
    "float": ("log", "step", "when"),
    "boolean": ("when",),
}
_EXAMPLES = (
    "{choice: [1, 2, 4]}, {int: [1, 8]}, {float: [1.0e-4, 1.0e-3], log: true} or {boolean: true}"
)
_REFUSED = {
    "run": "trials are named, seeded and kept by the search",
    "data": "all trials share one record store, so that their scores can be compared",
    "records": "all trials share one record store",
    "split": "scores on different patients cannot be compared",
    "model.sam.prompt": "scores of other prompts cannot be compared",
    "training.epochs": "set search.epochs instead",
    "training.devices": "search.parallel and --gpu place the trials",
    "training.strategy": "search.parallel and --gpu place the trials",
    "training.callbacks": "it does not belong to what is compared",
    "training.early_stopping_patience": "set search.patience instead",
    "training.score_smoothing": "scores smoothed in different ways cannot be compared",
    "training.validate_volumes_every": "it does not belong to what is compared",
    "metrics": "no score of the training depends on it",
}


def read_space(entries: Mapping[str, Any], where: str, tuner: str) -> tuple[Parameter, ...]:
    """Read the parameters, and put each behind those that it depends on.

    `check_space` says whether the settings exist and take the values. Raises `UserError` if an
    entry is wrong, which names `where`, the entry, what was found and expected.

    Args:
        where: the file, for messages.
        tuner: `search.tuner`; a grid must be able to count the values.
    """
    found = {
        name: _read_parameter(name, entry, f"{where}: search.space: {name}", tuner)
        for name, entry in entries.items()
    }
    for parameter in found.values():
        _check_conditions(parameter, found, f"{where}: search.space: {parameter.name}")
    ordered: list[Parameter] = []
    while left := [parameter for parameter in found.values() if parameter not in ordered]:
        names = {parameter.name for parameter in ordered}
        ready = [parameter for parameter in left if set(parameter.when) <= names]
        if not ready:
            circle = " and ".join(parameter.name for parameter in left)
            raise UserError(
                f"{where}: search.space: {circle} depend on each other by when: leave one of these "
                "out."
            )
        ordered += ready
    return tuple(ordered)


def _read_parameter(name: str, entry: Any, place: str, tuner: str) -> Parameter:
    for refused, why in _REFUSED.items():
        if name == refused or name.startswith(f"{refused}."):
            raise UserError(f"{place} cannot be searched: {why}.")
    if not isinstance(entry, dict):
        raise UserError(f"{place}: found {show(entry)}, expected {_EXAMPLES}.")
    kinds = [kind for kind in _OPTIONS if kind in entry]
    if len(kinds) != 1:
        what = f"both {' and '.join(kinds)}" if kinds else f"keys {', '.join(map(str, entry))}"
        near = [m for key in entry for m in difflib.get_close_matches(str(key), _OPTIONS, n=1)]
        hint = f" Did you mean {near[0]}?" if near and not kinds else ""
        raise UserError(f"{place}: found {what}, expected {_EXAMPLES}.{hint}")
    kind: Any = kinds[0]
    for option in entry:
        if option != kind and option not in _OPTIONS[kind]:
            known = ", ".join(_OPTIONS[kind])
            raise UserError(f"{place}: unknown option {option} of {kind}. Known: {known}.")
    when = entry.get("when", {})
    if not isinstance(when, dict) or not all(isinstance(name, str) for name in when):
        raise UserError(
            f"{place}: when: found {show(when)}, expected another searched setting with its value "
            "or a list of its values, such as {optimizer.name: sgd}."
        )
    when = {name: tuple(v) if isinstance(v, list) else (v,) for name, v in when.items()}
    if kind == "choice":
        return Parameter(name, kind, choices=_read_choices(entry[kind], place), when=when)
    if kind == "boolean":
        if entry[kind] is not True:
            raise UserError(
                f"{place}: found boolean: {json.dumps(entry[kind])}, expected {{boolean: true}}, "
                "which tries true and false."
            )
        return Parameter(name, kind, choices=(False, True), when=when)
    return Parameter(name, kind, (), *_read_range(kind, entry, place, tuner), when)


def _read_choices(values: Any, place: str) -> tuple[Value, ...]:
    if not isinstance(values, list) or len(values) < 2:
        raise UserError(f"{place}: found {show(values)}, expected a choice of two or more values.")
    for index, value in enumerate(values):
        if any(same(value, other) for other in values[:index]):
            raise UserError(f"{place}: {json.dumps(value)} is there twice: leave one out.")
    return tuple(values)


def _read_range(
    kind: str, entry: Mapping[str, Any], place: str, tuner: str
) -> tuple[float, float, float | None, bool]:
    """Return the lowest value, the highest, the step and whether it is searched by logarithms."""
    ends, log, step = entry[kind], entry.get("log", False), entry.get("step")
    numbers, is_number = ("whole numbers", _is_whole) if kind == "int" else ("numbers", _is_number)
    if not (isinstance(ends, list) and len(ends) == 2 and all(map(is_number, ends))):
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
        limit = "above 1, as log multiplies by it" if log else "above 0"
        raise UserError(f"{place}: step: found {show(step)}, expected one of {numbers}, {limit}.")
    if tuner == "grid" and step is None and (kind == "float" or log):
        raise UserError(
            f"{place}: a grid needs to know which values: give a step (with log: what it is "
            "multiplied by), or a choice."
        )
    return ends[0], ends[1], step, log


def _check_conditions(parameter: Parameter, found: Mapping[str, Parameter], place: str) -> None:
    for parent, values in parameter.when.items():
        condition = f"{place}: when: {parent}"
        if parent not in found or parent == parameter.name:
            others = ", ".join(name for name in found if name != parameter.name) or "none"
            raise UserError(
                f"{condition} is not searched itself, so it cannot decide: name one of "
                f"search.space ({others}), or leave when out."
            )
        other = found[parent]
        if other.kind == "float":
            raise UserError(f"{condition} is a float, of which no value comes twice: use a choice.")
        if not values:
            raise UserError(f"{condition} names no value.")
        for value in values:
            if not other.has(value):
                known = ", ".join(json.dumps(value) for value in other.finite or ())
                if other.kind == "int" and (other.finite is None or len(other.finite) > 8):
                    known = f"{other.lowest} to {other.highest}"
                raise UserError(
                    f"{condition}: {json.dumps(value)} is none of its values ({known})."
                )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# Making experiments of it.

_MOST = 300
"""Combinations that are checked; each takes a few milliseconds."""


def with_values(base: Mapping[str, Any], values: Mapping[str, Value]) -> Experiment:
    """Return the base experiment, which is given as it is written, with other values of settings.

    Raises `UserError` if they are refused.
    """
    overrides = [f"{name}={json.dumps(value)}" for name, value in values.items()]
    return make_experiment(json.loads(json.dumps(base)), overrides)


def check_space(space: Sequence[Parameter], base: Mapping[str, Any], where: str) -> list[str]:
    """Check, before the first trial, that experiments take what a search may try.

    Every choice and both ends of every range are tried in every combination, or in as many drawn
    ones as `_MOST`. Returns a message for each combination that is refused though each of its
    values is fine with others; as trials they would fail. Raises `UserError` if a parameter is no
    setting, or a value is refused whatever the others are.
    """
    accepted: dict[str, list[Value]] = {parameter.name: [] for parameter in space}
    refused: list[tuple[dict[str, Value], str]] = []
    few = math.prod(len(parameter.ends) for parameter in space) <= _MOST
    for values in combinations(space, lambda p: p.ends) if few else _drawn_combinations(space):
        try:
            with_values(base, values)
        except UserError as error:
            refused.append((values, str(error)))
        else:
            for name, value in values.items():
                accepted[name].append(value)
    never_accepted = [
        _explain_refusal(parameter.name, value, refused)
        for parameter in space
        for value in parameter.ends
        if not any(same(value, other) for other in accepted[parameter.name])
    ]
    if never_accepted:
        # One wrong value may have all combinations refused: a message that names it comes first.
        _, message = max(never_accepted, key=lambda found: found[0])
        raise UserError(f"{where}: search.space: {message}")
    return [message for _, message in refused]


def _explain_refusal(
    name: str, value: Value, refused: Sequence[tuple[dict[str, Value], str]]
) -> tuple[bool, str]:
    """Return whether a message of a refusal names this parameter, and that message or another."""
    messages = [m for values, m in refused if name in values and same(values[name], value)]
    lines = [line for message in messages for line in message.splitlines()]
    own = next((line for line in lines if name in line), None)
    reason = (own or lines[0]).removeprefix("override: ")
    return own is not None, f"{name}: {json.dumps(value)} cannot be tried: {reason}"


def _drawn_combinations(space: Sequence[Parameter]) -> Iterator[dict[str, Value]]:
    """Yield about `_MOST` random combinations, each value in as many of them."""
    generator = random.Random(0)
    by_name = {parameter.name: parameter for parameter in space}

    def needed(parameter: Parameter) -> dict[str, tuple[Value, ...]]:
        """Return the values of other parameters with which this one is searched."""
        values = dict(parameter.when)
        for parent in parameter.when:
            values = needed(by_name[parent]) | values
        return values

    fixed = [needed(p) | {p.name: (value,)} for p in space for value in p.ends]
    for values in fixed * max(_MOST // len(fixed), 2):
        chosen: dict[str, Value] = {}
        for parameter in space:
            value = generator.choice(values.get(parameter.name, parameter.ends))
            if parameter.is_active(chosen):
                chosen[parameter.name] = value
        yield chosen


# The space in KerasTuner.


def hyperparameters(space: Sequence[Parameter]) -> "HyperParameters":
    """Return the space as KerasTuner has it.

    Where the values can be counted it is a choice of their indices, as KerasTuner has no choice of
    lists, nor of values of different types.
    """
    from keras_tuner import HyperParameters  # starts TensorFlow

    result = HyperParameters()
    by_name = {parameter.name: parameter for parameter in space}
    for parameter in space:
        name, sampling = parameter.name, "log" if parameter.log else "linear"
        with ExitStack() as stack:
            for parent, values in parameter.when.items():
                tuner_values = [tuner_value(by_name[parent], value) for value in values]
                stack.enter_context(result.conditional_scope(parent, tuner_values))
            if parameter.kind == "boolean":
                result.Boolean(name)
            elif parameter.finite is not None:
                result.Choice(name, list(range(len(parameter.finite))))
            elif parameter.kind == "int":
                result.Int(name, int(parameter.lowest), int(parameter.highest), sampling=sampling)
            else:
                result.Float(name, parameter.lowest, parameter.highest, sampling=sampling)
    return result


def tuner_value(parameter: Parameter, value: Value) -> Any:
    """Return the value of a setting as `hyperparameters` has it."""
    if parameter.kind == "boolean" or parameter.finite is None:
        return value
    return next(i for i, other in enumerate(parameter.finite) if same(value, other))


def plain_values(space: Sequence[Parameter], values: Mapping[str, Any]) -> dict[str, Value]:
    """Turn KerasTuner's values into those of the settings, of the searched parameters alone.

    A float has six digits of single precision, as in the records of earlier versions: a trial is
    resumed only where its record has the very same values.
    """
    return {p.name: _plain_value(p, values[p.name]) for p in space if p.name in values}


def _plain_value(parameter: Parameter, value: Any) -> Value:
    if parameter.kind == "boolean":
        return bool(value)
    if parameter.finite is not None:
        return parameter.finite[int(value)]
    if parameter.kind == "int":
        return int(value)
    rounded = float(f"{float(np.float32(value)):.6g}")
    return min(max(rounded, float(parameter.lowest)), float(parameter.highest))
