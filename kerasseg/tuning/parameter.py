"""One searched setting."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

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
