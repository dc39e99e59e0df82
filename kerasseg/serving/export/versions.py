"""`models/NAME/<version>/`: whole or not there."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from kerasseg.errors import UserError, storage_error

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


def versions_of(folder: Path) -> list[int]:
    """The versions of a model that TensorFlow Serving would find, in order."""
    return sorted(
        int(path.name)
        for path in folder.iterdir()
        if path.name.isdecimal() and (path / "saved_model.pb").is_file()
    )


def check_output(folder: Path) -> None:
    """Raise `UserError` if no model can be written into `folder`."""
    if not _NAME.fullmatch(folder.name):
        raise UserError(
            f"--output {folder}: its last part is the name that clients use, so it must start with "
            "a letter and have letters, digits, _, - and . only, such as models/brain."
        )
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise UserError(f"--output {folder}: {path} is a file; name a folder, models/NAME.")
    if (folder / "saved_model.pb").exists() or (folder / "config.yaml").exists():
        raise UserError(
            f"--output {folder} is a SavedModel or a run itself: name the folder of a model, in "
            "which every export is a version of its own."
        )


def write_version(folder: Path, write: Callable[[Path], None]) -> Path:
    """What `write` makes of an empty folder, as the next version of the model in `folder`.

    It is written beside the versions under a name that TensorFlow Serving passes over, and renamed
    when it is whole. On any failure nothing of it stays. Raises `UserError` for a full disk.
    """
    before = folder.exists()
    aside = folder / f".incomplete-{os.getpid()}"
    try:
        aside.mkdir(parents=True)
        write(aside)
        return _rename(aside, folder)
    except OSError as error:
        raise storage_error(error, f"Writing {folder}", "--output") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if not before and folder.exists() and not any(folder.iterdir()):
            folder.rmdir()


def _rename(aside: Path, folder: Path) -> Path:
    while True:
        numbers = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
        version = folder / str(max(numbers, default=0) + 1)
        try:
            aside.rename(version)
        except OSError:
            if not version.exists():  # else another export was faster
                raise
        else:
            return version
