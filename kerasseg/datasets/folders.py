"""Walking a dataset's folder."""

import os
from collections.abc import Iterator
from pathlib import Path

from kerasseg.errors import UserError

_NOT_DATA = ("__MACOSX", ".git", ".ipynb_checkpoints")


def files_below(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder under `root` with its files, both sorted; links to folders are not followed.

    Raises `UserError` when `root` is no folder that can be read.
    """
    if not root.exists():
        raise UserError(
            f"data.root: {root} does not exist (looked from {Path.cwd()}): set data.root to the "
            "folder of the scans."
        )
    if not root.is_dir():
        raise UserError(f"data.root: {root} is a file, expected the folder of the scans.")

    def refuse(error: OSError) -> None:
        raise UserError(f"data.root: {error.filename} cannot be listed: {error.strerror}.")

    for folder, subfolders, names in os.walk(root, onerror=refuse):
        subfolders[:] = sorted(name for name in subfolders if name not in _NOT_DATA)
        # macOS adds a hidden ._name beside every file it copies.
        yield Path(folder), sorted(name for name in names if not name.startswith("."))
