"""One process at a time."""

import fcntl
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kerasseg.errors import UserError


@contextmanager
def held(path: Path, otherwise: str, wait: float = 0.0) -> Iterator[None]:
    """Hold the file `path` against other processes, waiting up to `wait` seconds for it.

    The lock is the operating system's: it ends with the process, however that ends. Raises
    `UserError` with the words `otherwise` and the holder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        end = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    file.seek(0)
                    holder = file.read().strip() or "it does not say which"
                    raise UserError(f"{path.parent}: {otherwise} ({holder}).") from None
                time.sleep(min(0.2, max(wait, 0.01)))
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield
        file.truncate(0)
