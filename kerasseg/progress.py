"""Progress bars for everything that takes more than a few seconds."""

import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")
LINE_SECONDS = 30.0
"""Time between two lines about work that goes on, where no terminal shows a bar."""

Watcher = Callable[[int, int, bool], None]
_WATCHER: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watched_by(watcher: Watcher) -> Iterator[None]:
    """Let `watcher(done, total, preparing)` be called during the block for every `report`.

    What it raises stops the work, so it can also cancel.
    """
    token = _WATCHER.set(watcher)
    try:
        yield
    finally:
        _WATCHER.reset(token)


def report(done: int, total: int, preparing: bool = False) -> None:
    """Tell the watcher of this thread, if there is one, how many parts of the work are done.

    The parts are those of the prediction, or of the scan's preparation before it.
    """
    watcher = _WATCHER.get()
    if watcher is not None:
        watcher(done, total, preparing)


def track(items: Iterable[T], total: int, description: str) -> Generator[T, None, None]:
    """Yield `items` behind a bar on standard error; without a terminal, a line now and then."""
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield from _with_lines(items, total, description)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(description, total=total)
        for item in items:
            yield item
            progress.advance(task)


def _with_lines(items: Iterable[T], total: int, description: str) -> Generator[T, None, None]:
    started = said = time.monotonic()
    done = 0
    for item in items:
        yield item
        done, now = done + 1, time.monotonic()
        if now - said >= LINE_SECONDS and done < total:
            said, left = now, (now - started) / done * (total - done)
            _say(f"{description}: {done}/{total} in {now - started:.0f} s, about {left:.0f} s left")
    _say(f"{description}: {done}/{total} in {time.monotonic() - started:.0f} s")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
