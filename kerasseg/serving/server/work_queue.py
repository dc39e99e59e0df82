"""`WorkQueue`: one thread, and a bounded number of tasks that wait for it."""

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from kerasseg.serving.server.refusal import Reason, Refusal


class WorkQueue:
    """Tasks of one model, one after the other: TensorFlow uses all cores for each.

    size: tasks that may wait
    """

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self._tasks: queue.Queue[tuple[Callable[[], Any], Future] | None] = queue.Queue(size)
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name=f"work-{name}", daemon=True)
        self._thread.start()

    @property
    def length(self) -> int:
        """Tasks that wait."""
        return self._tasks.qsize()

    def put(self, task: Callable[[], Any]) -> Future:
        """Let `task` wait for its turn; `Future.cancel` takes it out again.

        Raises `Refusal` if the queue is full or the server is being stopped.
        """
        future: Future = Future()
        if self._stopped:
            raise Refusal(Reason.UNAVAILABLE, "The server is being stopped: try again later.")
        try:
            self._tasks.put_nowait((task, future))
        except queue.Full:
            raise Refusal(
                Reason.UNAVAILABLE,
                f"{self.length} requests of the model {self.name} wait already: try again later.",
            ) from None
        return future

    def stop(self, seconds: float) -> None:
        """Take nothing new; finish what runs and what waits, for at most `seconds`."""
        self._stopped = True
        until = time.monotonic() + seconds
        try:
            self._tasks.put(None, timeout=seconds)
        except queue.Full:
            return
        self._thread.join(max(until - time.monotonic(), 0))

    def _work(self) -> None:
        while (item := self._tasks.get()) is not None:
            task, future = item
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(task())
                except BaseException as error:
                    future.set_exception(error)
            # Else the volume of this request would stay until the next one comes.
            del item, task, future


def wait(future: Future, seconds: float) -> Any:
    """What the task returned.

    Raises `Refusal` after `seconds`; a task that runs by then cannot be stopped, one that waits is
    taken out.
    """
    try:
        return future.result(max(seconds, 0))
    except TimeoutError:
        if future.done():
            raise
        future.cancel()
        raise Refusal(
            Reason.TOO_LATE, "The time for this request was over before it was answered."
        ) from None
