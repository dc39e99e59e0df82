"""What is said while a search goes on: a line per trial, and a bar."""

import json
import sys
import textwrap
import threading
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kerasseg.settings.tuning import SearchSettings
from kerasseg.tuning.record import TrialRecord

_MOST_CHARACTERS = 500


class SearchProgress:
    """Used as a context around the search. `total`: trials that are planned; None if not known."""

    def __init__(self, settings: SearchSettings, total: int | None, done: list[TrialRecord]):
        self.settings = settings
        self.best: TrialRecord | None = None
        self.total = total
        self._lock = threading.Lock()
        self._seen: set[str] = set()
        columns = (TextColumn("Trials"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        console = Console(file=sys.stdout, highlight=False, markup=False, soft_wrap=True)
        self._say = console.print
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=total)
        for record in done:
            self._take(record)

    def __enter__(self) -> "SearchProgress":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def ended(self, record: TrialRecord) -> None:
        """Say how a trial went."""
        with self._lock:
            self._take(record)
            self._say(self._line(record), style="yellow" if record.status == "failed" else None)

    def _take(self, record: TrialRecord) -> None:
        if not record.is_done or record.trial_id in self._seen:
            return
        self._seen.add(record.trial_id)
        if record.number:
            self._progress.advance(self._task)
        if record.number and record.score is not None and record.status == "completed":
            sign = 1 if self.settings.direction == "max" else -1
            if self.best is None or sign * record.score > sign * (self.best.score or 0.0):
                self.best = record

    def _line(self, record: TrialRecord) -> str:
        of = f"/{self.total}" if self.total else ""
        name = f"Trial {record.number}{of}" if record.number else "Baseline"
        values = show_values(record.values) or "the base experiment"
        if record.continued_from is not None:
            values += f" (goes on from trial {int(record.continued_from) + 1})"
        minutes = f"{record.minutes:.1f} min"
        if record.status == "failed":
            return f"{name:<12} {values}  FAILED after {minutes}: {in_short(record)}"
        if record.status == "stopped":
            return f"{name:<12} {values}  stopped; python tune.py again goes on with it"
        best = ""
        if self.best is not None and record.number:
            best = f"  best {self.best.score:.4f} (trial {self.best.number})"
        return f"{name:<12} {values}  {self.settings.objective} {record.score:.4f}  {minutes}{best}"


def in_short(record: TrialRecord) -> str:
    """The reason of a failure in one line; TensorFlow's may be a page."""
    return textwrap.shorten(record.reason or "", _MOST_CHARACTERS, placeholder=" …")


def show_values(values: Mapping[str, Any]) -> str:
    """'optimizer.learning_rate=0.001 model.features=[8,16]'."""
    return " ".join(f"{name}={show_value(value)}" for name, value in values.items())


def show_value(value: Any) -> str:
    """As it would be typed."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
