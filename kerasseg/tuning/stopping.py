"""Ctrl-C and a scheduler's SIGTERM, for a search with several threads."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class SearchStopped(KeyboardInterrupt):
    """The search was asked to stop by the signal `number`; all is saved."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Stop:
    """One event per worker, so that one of them can be stopped alone, and the signal that stops
    all."""

    def __init__(self, workers: int = 1) -> None:
        self.events = [threading.Event() for _ in range(workers)]
        self.number: int | None = None
        self.all = False

    def set(self) -> None:
        """Stop all."""
        self.all = True
        for event in self.events:
            event.set()

    def raise_if_asked(self) -> None:
        """Raise `SearchStopped` if it was a signal that stopped all."""
        if self.number is not None:
            raise SearchStopped(self.number)


@contextmanager
def stopping(workers: int = 1) -> Iterator[Stop]:
    """What is set by the first signal; a second one of the same kind acts as without this."""
    stop = Stop(workers)
    before: dict[int, Any] = {}

    def remember(number: int, frame: FrameType | None) -> None:
        stop.number = number
        signal.signal(number, before[number])
        print("\nStopping: what is under way saves its state …", flush=True)
        stop.set()

    if threading.current_thread() is threading.main_thread():
        for asked in (signal.SIGINT, signal.SIGTERM):
            before[asked] = signal.signal(asked, remember)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
