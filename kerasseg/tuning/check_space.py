"""Whether experiments take what a search may try, known before the first trial."""

import itertools
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kerasseg.config import Experiment
from kerasseg.config_file import make_experiment
from kerasseg.errors import UserError
from kerasseg.tuning.parameter import Parameter, same

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
