"""A setting that is searched."""

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Parameter:
    """One entry of the search's space.

    kind:    choice, int, float or boolean
    choices: of choice and boolean, in the order of `search.yaml`; then those that only trials have
    low, high, log: of int and float
    when:    the values of other settings under which this one is used at all
    """

    name: str
    kind: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    when: dict[str, Any] | None = None

    @property
    def is_category(self) -> bool:
        """Whether its values have no scale."""
        return self.kind in ("choice", "boolean")

    @property
    def short_name(self) -> str:
        """Name for an axis, the section above."""
        return self.name.replace(".", ".\n", 1)

    def is_used(self, values: Mapping[str, Any]) -> bool:
        """Whether the other settings' values are those under which this one counts."""
        for name, wanted in (self.when or {}).items():
            several = wanted if isinstance(wanted, list) else [wanted]
            if not any(same(values.get(name), value) for value in several):
                return False
        return True

    def number(self, value: Any) -> float:
        """Place of a value on the parameter's axis, in its own unit or the index of a choice; NaN
        where it has none."""
        if self.is_category:
            return next((float(n) for n, c in enumerate(self.choices) if same(c, value)), math.nan)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return math.nan
        return math.nan if self.log and value <= 0 else float(value)

    def scaled(self, numbers: Sequence[float] | np.ndarray) -> np.ndarray:
        """Of `number`: from 0 to 1 over the space, in the logarithm where it is searched so."""
        found = np.asarray(numbers, dtype=float)
        if self.is_category:
            return found / (len(self.choices) - 1) if len(self.choices) > 1 else found * 0 + 0.5
        low, high = self.low, self.high
        if self.log:
            found, low, high = np.log(found), float(np.log(low)), float(np.log(high))
        return (found - low) / (high - low) if high > low else found * 0 + 0.5

    def labels(self, lines: int = 3, width: int = 20) -> list[str]:
        """Its choices in at most so many lines of so many characters, no two the same."""
        short = [_shortened(value_in_words(choice), lines, width) for choice in self.choices]
        if len(set(short)) < len(short):
            short = [f"{n + 1}: {word}" for n, word in enumerate(short)]
        return short


def range_in_words(parameter: Parameter) -> str:
    """What is searched, and when the setting is in use at all."""
    if parameter.is_category:
        words = ", ".join(map(value_in_words, parameter.choices))
    else:
        words = f"{parameter.low:.4g} to {parameter.high:.4g}"
        words += ", logarithmic" if parameter.log else ""
        words += ", whole numbers" if parameter.kind == "int" else ""
    for name, value in (parameter.when or {}).items():
        wanted = value if isinstance(value, list) else [value]
        words += f"; if {name} is {' or '.join(map(value_in_words, wanted))}"
    return words


def value_in_words(value: Any) -> str:
    """A value as a table shows it: lists and sections as YAML has them, in one line."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return f"[{', '.join(_item(item) for item in value)}]"
    return f"{{{_item(value)}}}" if isinstance(value, dict) else str(value)


def same(one: Any, other: Any) -> bool:
    """Equal, and of one type: true is not 1."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _item(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {value_in_words(entry)}" for name, entry in value.items())
    return value_in_words(value)


def _shortened(words: str, lines: int, width: int) -> str:
    """Of what is longer, both ends."""
    found = textwrap.wrap(words, width, break_on_hyphens=False)
    if len(found) > lines:
        half = width * lines // 2 - (2 if lines > 1 else 1)
        found = textwrap.wrap(f"{words[:half]}\N{HORIZONTAL ELLIPSIS}{words[-half:]}", width)
    return "\n".join(found)
