"""One searched setting."""

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

Value = Any
"""What a setting may have: a number, text, true or false, null, or a list or section of these."""


@dataclass(frozen=True)
class Parameter:
    """A setting by its dotted name, and the values that are tried.

    choices:  of a choice
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

    @cached_property
    def finite(self) -> tuple[Value, ...] | None:
        """Every value that is tried; None where any number between two may be.

        Of a range with a step the highest is there if a step leads to it.
        """
        if self.kind == "choice":
            return self.choices
        if self.kind == "boolean":
            return (False, True)
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
        if self.kind in ("choice", "boolean"):
            return self.finite or ()
        return (self.lowest, self.finite[-1] if self.finite else self.highest)

    def has(self, value: Value) -> bool:
        """Whether this value is among those tried."""
        if self.finite is not None:
            return any(same(value, other) for other in self.finite)
        right_type = isinstance(value, int) and not isinstance(value, bool)
        return self.kind == "int" and right_type and self.lowest <= value <= self.highest


def same(one: Value, other: Value) -> bool:
    """Equal, and of one type: true is not 1."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
