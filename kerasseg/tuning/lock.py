"""One process at a time."""

import fcntl
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kerasseg.errors import UserError, storage_error


@contextmanager
def held(path: Path, otherwise: str, wait: float = 0.0) -> Iterator[None]:
    """Hold the file `path` against other processes, waiting up to `wait` seconds for it.

    The lock is the operating system's: it ends with the process, however that ends. Raises
    `UserError` with the words `otherwise` and the holder.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without a buffer, which would be written when the file is closed, on a full disk, too.
        file = path.open("ab+", buffering=0)
    except OSError as error:
        raise storage_error(error, f"Making {path}", "search.root") from error
    with file:
        end = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    file.seek(0)
                    holder = file.read().decode().strip() or "it does not say which"
                    raise UserError(f"{path.parent}: {otherwise} ({holder}).") from None
                time.sleep(min(0.2, max(wait, 0.01)))
        with suppress(OSError):  # who holds it is only told to others
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}".encode())
        yield
        with suppress(OSError):
            file.truncate(0)
