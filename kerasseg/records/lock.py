"""One conversion at a time in one folder."""

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kerasseg.errors import UserError

FILE_NAME = ".lock"


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the folder `root` against other conversions.

    The lock is the operating system's: it ends with the process, however that ends. Raises
    `UserError` that names the holder if there is one.
    """
    path = root / FILE_NAME
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise UserError(
                f"{root}: {holder} is converting into this folder right now: wait until it is "
                "done, or name another folder with records.root=FOLDER."
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield
        # Emptied, not removed: another process may be waiting to open this very file.
        file.truncate(0)
