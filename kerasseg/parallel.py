"""Mapping a function over many items in several processes, one of which may be killed."""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

from kerasseg.errors import UserError

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Options of mallopt in glibc's malloc.h."""

T = TypeVar("T")
R = TypeVar("R")


def parallel_map(
    function: Callable[[T], R], items: Iterable[T], workers: int, killed: Callable[[T], R]
) -> Iterator[R]:
    """Yield `function` of every item, in order.

    Args:
        function: A function that can be pickled.
        items: At most `workers` + 1 of them are under way or wait to be taken.
        workers: Number of processes; 1 means this process itself.
        killed: Gives the result of an item whose process was killed, as the system does with a
            process that takes all memory.

    Raises:
        UserError: No process can be started at all, or each would run the user's script again.
    """
    if workers <= 1:
        yield from map(function, items)
        return
    _refuse_unguarded_script()
    waiting: deque[tuple[T, Future[R]]] = deque()
    pool = _pool(workers)
    try:
        for item in items:
            waiting.append((item, _submit(pool, function, item)))
            if len(waiting) <= workers:
                continue
            first, future = waiting.popleft()
            try:
                yield future.result()
            except BrokenProcessPool:
                # Everything under way was lost with the item at fault: each is tried on its own.
                pool.shutdown()
                lost = [first, *(other for other, _ in waiting)]
                waiting.clear()
                yield from (_alone(function, other, killed) for other in lost)
                pool = _pool(workers)
        while waiting:
            first, future = waiting.popleft()
            try:
                yield future.result()
            except BrokenProcessPool:
                yield _alone(function, first, killed)
    finally:
        pool.shutdown(cancel_futures=True)


def _refuse_unguarded_script() -> None:
    """Raise `UserError` in a script whose call would be made again by every process that starts.

    A process that is spawned runs the script to know its functions. There the call would wait for
    the lock that this process holds.
    """
    main = sys.modules["__main__"]
    path = getattr(main, "__file__", None)
    frames = (frame for frame, _ in traceback.walk_stack(None))
    called = any(f.f_globals is vars(main) and f.f_code.co_name == "<module>" for f in frames)
    if not called or path is None or getattr(main, "__spec__", None) is not None:
        return  # a module that is run with -m is not run again, nor is a notebook
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if "__name__" not in Path(path).read_text(encoding="utf-8"):
            raise UserError(
                f"{path}: calls kerasseg outside of `if __name__ == '__main__':`. Every process "
                "that reads scans would run the script anew: put the call under this line, or set "
                "records.workers=1."
            )


def _alone(function: Callable[[T], R], item: T, killed: Callable[[T], R]) -> R:
    with _pool(1) as pool:
        try:
            return pool.submit(function, item).result()
        except BrokenProcessPool:
            pass
    with _pool(1) as pool:
        try:
            pool.submit(os.getpid).result()
        except BrokenProcessPool:
            raise UserError(
                "A reading process ended at once: either memory ran out (try records.workers=1), "
                "or a script of yours that calls kerasseg lacks `if __name__ == '__main__':` "
                "around the call."
            ) from None
    return killed(item)


def _submit(pool: ProcessPoolExecutor, function: Callable[[T], R], item: T) -> Future[R]:
    # A process that begins inherits the mask: in its first second nothing else keeps Ctrl-C away.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(function, item)
    except BrokenProcessPool as error:  # a process died since the last result was taken
        future: Future[R] = Future()
        future.set_exception(error)
        return future
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _pool(workers: int) -> ProcessPoolExecutor:
    # Spawned, not forked: a parent that has imported TensorFlow has threads a fork would lose.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, initializer=_start)


def _start() -> None:
    # Ctrl-C is the parent's to answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Have the C library keep what this process frees, for its next array.

    It gives blocks of many MB back to the system at once, and the pages of the next volume must be
    found and zeroed anew: a tenth of the time of a conversion (benchmarks/notes.md). Does nothing
    where the C library is not glibc.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
