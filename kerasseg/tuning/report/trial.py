"""A trial of a search."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STATUSES = ("completed", "stopped", "failed", "running")
_NAN = float("nan")


@dataclass(frozen=True)
class Execution:
    """One training of a trial. `curve` is the objective per epoch; what is not known is NaN."""

    run: Path | None
    score: float
    epochs: int
    minutes: float
    curve: tuple[float, ...] = ()
    peak_memory_gib: float = _NAN

    @property
    def first_epoch(self) -> int:
        """Of the curve, which for a continued training may hold its own epochs only."""
        return max(self.epochs - len(self.curve), 0) + 1


@dataclass(frozen=True)
class Trial:
    """What `trials/<trial_id>.json` says. `values` holds the settings in use only; times are unix
    seconds; a score that is missing or not finite is NaN."""

    trial_id: str
    number: int
    status: str
    reason: str
    score: float
    values: dict[str, Any]
    executions: tuple[Execution, ...]
    started: float
    ended: float
    worker: str
    bracket: int | None
    round: int | None
    epochs_to: int | None
    continued_from: str | None

    @property
    def is_baseline(self) -> bool:
        """Whether it is the experiment as it was before the search."""
        return self.number == 0

    @property
    def title(self) -> str:
        """What it is called in figures."""
        return "baseline" if self.is_baseline else f"trial {self.number}"

    @property
    def is_scored(self) -> bool:
        """Whether it ended with a score that can be compared."""
        return self.status == "completed" and not math.isnan(self.score)

    @property
    def epochs(self) -> int:
        """Of the longest of its executions."""
        return max((execution.epochs for execution in self.executions), default=0)

    @property
    def minutes(self) -> float:
        """Of its executions; without any, from start to end."""
        if self.executions:
            return sum(execution.minutes for execution in self.executions)
        return max(self.ended - self.started, 0.0) / 60 if not math.isnan(self.ended) else 0.0

    @property
    def peak_memory_gib(self) -> float:
        """Of its executions; NaN where none was measured."""
        known = [e.peak_memory_gib for e in self.executions if not math.isnan(e.peak_memory_gib)]
        return max(known, default=_NAN)
