"""`WorkQueue`: one thread, and a bounded number of tasks that wait for it."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from kerasseg.serving.server.refusal import Reason, Refusal


class WorkQueue:
    """Tasks of one model, one after the other: TensorFlow uses all cores for each.

    size: tasks that may wait
    """

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size = name, size
        self._waiting: deque[tuple[Callable[[], Any], Future]] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name=f"work-{name}", daemon=True)
        self._thread.start()

    @property
    def length(self) -> int:
        """Tasks that wait."""
        return len(self._waiting)

    def put(self, task: Callable[[], Any]) -> Future:
        """Let `task` wait for its turn; `Future.cancel` takes it out again.

        Raises `Refusal` if the queue is full or the server is being stopped.
        """
        future: Future = Future()
        with self._changed:
            if self._stopped:
                raise Refusal(Reason.UNAVAILABLE, "The server is being stopped: try again later.")
            if len(self._waiting) >= self.size:
                raise Refusal(
                    Reason.UNAVAILABLE,
                    f"{self.size} requests of the model {self.name} wait already: try again later.",
                )
            self._waiting.append((task, future))
            self._changed.notify()
        future.add_done_callback(self._take_out)
        return future

    def stop(self, seconds: float) -> None:
        """Take nothing new; finish what runs and what waits, for at most `seconds`."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join(seconds)

    def _take_out(self, future: Future) -> None:
        """Its place and its volume are free again."""
        if future.cancelled():
            with self._changed:
                kept = [item for item in self._waiting if item[1] is not future]
                self._waiting = deque(kept)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopped)
                if not self._waiting:
                    return
                task, future = self._waiting.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(task())
                except BaseException as error:
                    future.set_exception(error)
            # Else the volume of this request would stay until the next one comes.
            del task, future


def wait(future: Future, seconds: float) -> Any:
    """What the task returned.

    Raises `Refusal` after `seconds`; a task that runs by then cannot be stopped, one that waits is
    taken out.
    """
    try:
        return future.result(max(seconds, 0))
    except FutureTimeoutError:  # before Python 3.11 another one than the built-in
        if future.done():
            raise
        future.cancel()
        raise Refusal(
            Reason.TOO_LATE, "The time for this request was over before it was answered."
        ) from None
