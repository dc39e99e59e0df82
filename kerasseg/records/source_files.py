"""The raw files behind a record, and whether they are still the same."""

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from kerasseg.errors import UserError

_CHUNK_BYTES = 1 << 20


class SourceFile(BaseModel):
    """A raw file as it was when converted; `name` is its path below data.root."""

    model_config = ConfigDict(extra="forbid")

    name: str
    bytes: int
    mtime_ns: int
    sha256: str


def describe(paths: Sequence[Path], root: Path | None) -> list[SourceFile]:
    """Size, time and SHA-256 of each file. Raises `UserError` for one that cannot be read."""
    files = []
    for path in paths:
        try:
            stat = path.stat()
            digest = hash_file(path)
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}.") from None
        files.append(
            SourceFile(
                name=_name(path, root),
                bytes=stat.st_size,
                mtime_ns=stat.st_mtime_ns,
                sha256=digest,
            )
        )
    return files


def readable(paths: Sequence[Path]) -> list[Path]:
    """Those of a bad case's files that can be opened; the others may be what is wrong with it."""
    found = []
    for path in paths:
        with contextlib.suppress(OSError), path.open("rb"):
            found.append(path)
    return found


def unchanged(paths: Sequence[Path], root: Path | None, known: Sequence[SourceFile]) -> bool:
    """Whether these are the files that were converted.

    Size and time of change decide; a file with another time but the same size is read, since
    copying a data set renews all times.
    """
    if [_name(path, root) for path in paths] != [file.name for file in known]:
        return False
    try:
        for path, file in zip(paths, known, strict=True):
            stat = path.stat()
            if stat.st_size != file.bytes:
                return False
            if stat.st_mtime_ns != file.mtime_ns and hash_file(path) != file.sha256:
                return False
    except OSError:
        return False
    return True


def hash_file(path: Path) -> str:
    """SHA-256 of a file, read piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _name(path: Path, root: Path | None) -> str:
    return path.relative_to(root).as_posix() if root and path.is_relative_to(root) else str(path)
