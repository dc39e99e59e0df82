"""Files that are whole or not there.

One conversion at a time in one folder.

One process at a time.
"""

import fcntl
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kerasseg.errors import UserError, storage_error

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


@contextmanager
def write_aside(path: Path, setting: str) -> Iterator[Path]:
    """Yield a temporary path of the same suffix beside `path`, renamed to it on success.

    On any failure the temporary file is removed and an older `path` stays as it was. An `OSError`
    becomes a `UserError` that names `path` and the `setting` that would move it elsewhere.
    """
    temporary = path.with_name(f".{path.stem}.incomplete{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise storage_error(error, f"Writing {path}", setting) from error
    finally:
        temporary.unlink(missing_ok=True)
