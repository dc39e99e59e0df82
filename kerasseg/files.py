"""Locks between processes, and files that are either whole or not there."""

import csv
import fcntl
import glob
import io
import json
import math
import os
import platform
import re
import secrets
import shutil
import sys
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from kerasseg.errors import UserError, storage_error

_SECONDS_BETWEEN_TRIES = 0.2
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@contextmanager
def file_lock(
    path: Path, doing: str, setting: str, *, wait: float = math.inf, refusal: str = ""
) -> Iterator[None]:
    """Hold a lock file; while another process holds it, say which one and wait.

    The operating system ends the lock together with its process, however that ends. Raises
    `UserError` if the file cannot be made, or another process holds it for longer than `wait`.

    Args:
        path: Lock file. It is made together with its folder, and stays there.
        doing: What this process does meanwhile, told to those that wait ("converts this store").
        setting: The setting that would move the file elsewhere ("records.root").
        wait: Seconds to wait at most; 0 refuses at once.
        refusal: What the user is told when the time is over.
    """
    with _locked_file(path, setting, wait, refusal) as file:
        # A full disk is no reason to stop here: others only learn less about who holds the lock.
        with suppress(OSError):
            file.truncate(0)
            since = datetime.now().strftime("%Y-%m-%d %H:%M")
            holder = f"process {os.getpid()} on {platform.node()}, which {doing} since {since}"
            file.write(holder.encode())
        try:
            yield
        finally:
            # The file is emptied, not removed: others may wait with this very file open.
            with suppress(OSError):
                file.truncate(0)


def _locked_file(path: Path, setting: str, wait: float, refusal: str) -> BinaryIO:
    """Open and lock `path`; the lock lasts until the file is closed."""
    end = time.monotonic() + wait
    is_told = False
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: closing a buffered file on a full disk would fail.
            file = path.open("ab+", buffering=0)
        except OSError as error:
            raise storage_error(error, f"Making {path}", setting) from error
        try:
            while not _try_lock(file, path, setting):
                holder = _read_holder(file)
                if time.monotonic() >= end:
                    raise UserError(f"{path.parent}: {refusal} ({holder}).")
                if not is_told:
                    print(f"Waiting for {holder}: {path.parent}", file=sys.stderr, flush=True)
                    is_told = True
                time.sleep(_SECONDS_BETWEEN_TRIES)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except BaseException:
            file.close()
            raise
        # The holder removed or replaced the folder: what was locked is not the file that others
        # would open by this path.
        file.close()


def _try_lock(file: BinaryIO, path: Path, setting: str) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise storage_error(error, f"Locking {path}", setting) from error
    return True


def _read_holder(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode(errors="replace").strip() or "a process that does not say which"


def spreadsheet_row(cells: Iterable[Any]) -> list[Any]:
    """Return the cells of a row of CSV, none of which a spreadsheet takes for a formula.

    A name that begins like a formula gets an apostrophe before it, by which spreadsheets know text.
    """
    return [
        f"'{cell}"
        if isinstance(cell, str) and cell.startswith(_FORMULA) and not _is_number(cell)
        else cell
        for cell in cells
    ]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def make_folder(folder: Path, setting: str) -> None:
    """Make a folder and those above it, where they are missing.

    Raises `UserError` if it cannot be made; the message names the `setting` that would move it
    elsewhere.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, f"Making {folder}", setting) from error


def require_space(folder: Path, needed: float, what: str, remedy: str) -> None:
    """Raise `UserError` if fewer than `needed` bytes are free on the disk of a folder.

    `what` needs them, with its verb ("the store needs about"); `remedy` is what the user can do.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: {what} {needed / 1e9:.3g} GB, but {free / 1e9:.3g} GB are free: {remedy}"
        )


@contextmanager
def atomic_write(path: Path, setting: str) -> Iterator[Path]:
    """Yield a temporary path with the same suffix beside `path`, renamed to it on success.

    No other process, on this machine or another, has the same temporary path. On any failure the
    temporary file is removed and an older `path` stays as it was. Temporary files of killed
    processes are removed when the same `path` is written again. Raises `UserError` if an `OSError`
    happened; the message names `path` and the `setting` that would move it elsewhere.
    """
    unique = f"{platform.node()[:32]}-{os.getpid()}-{secrets.token_hex(4)}"
    temporary = path.with_name(f".{path.stem}.{unique}.incomplete{path.suffix}")
    try:
        _remove_abandoned(path)
        # The lock tells others that this file's writer lives.
        with temporary.open("xb") as file:
            with suppress(OSError):  # some network file systems have no locks
                fcntl.flock(file, fcntl.LOCK_EX)
            yield temporary
            temporary.replace(path)
    except OSError as error:
        raise storage_error(error, f"Writing {path}", setting) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes, setting: str) -> None:
    """Write a whole file in one step; errors as those of `atomic_write`."""
    with atomic_write(path, setting) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str, setting: str) -> None:
    """Write a text as UTF-8 in one step."""
    write_bytes(path, text.encode(), setting)


def write_json(path: Path, values: Any, setting: str, *, indent: int = 2) -> None:
    """Write values as JSON in one step; a number that does not exist is null."""
    write_text(path, json.dumps(_without_nan(values), indent=indent) + "\n", setting)


def _without_nan(values: Any) -> Any:
    """Replace every NaN, which JSON does not know, by None."""
    if isinstance(values, Mapping):
        return {key: _without_nan(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_without_nan(value) for value in values]
    return None if isinstance(values, float) and math.isnan(values) else values


def write_csv(path: Path, rows: Iterable[Iterable[Any]], setting: str) -> None:
    """Write a table in one step, its heading first; no cell is taken for a formula."""
    text = io.StringIO()
    csv.writer(text).writerows(map(spreadsheet_row, rows))
    write_text(path, text.getvalue(), setting)


def _remove_abandoned(path: Path) -> None:
    """Remove the temporary files for `path` whose writers were killed."""
    pattern = f".{glob.escape(path.stem)}.*-*-*.incomplete{glob.escape(path.suffix)}"
    for temporary in path.parent.glob(pattern):
        with suppress(OSError), temporary.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while the writer lives
            temporary.unlink()


def folder_suffix(texts: Iterable[str]) -> str:
    """Return the end of a folder's name that says texts: `_flips_width` for `flips=[width]`."""
    name = "".join("_" + re.sub(r"[^\w.-]+", "_", text).strip("_") for text in texts)
    # Names of files end at 255 bytes.
    return name if len(name) <= 100 else f"{name[:90]}_{zlib.crc32(name.encode()):08x}"


def read_csv_rows(
    path: Path, setting: str, *, lower: bool = False
) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of a CSV table that are not empty: the number, as a spreadsheet counts, and
    the cells without blanks around them, by the names of the first row, made `lower` case.

    A cell that is missing is empty, and cells beyond the last name are not read. Raises
    `UserError`, which names the `setting`, for a file that cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = list(enumerate(csv.reader(file), start=1))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{setting}: {path} cannot be read: {reason}.") from None
    filled = [(n, [value.strip() for value in line]) for n, line in lines if any(line)]
    if not filled:
        return []
    header = [name.lower() if lower else name for name in filled[0][1]]
    return [
        (n, dict(zip(header, line + [""] * len(header), strict=False))) for n, line in filled[1:]
    ]
