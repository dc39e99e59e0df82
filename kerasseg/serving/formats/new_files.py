"""Files that appear together, when all are whole."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kerasseg.errors import UserError, storage_error


@contextmanager
def new_files(places: list[Path]) -> Iterator[list[Path]]:
    """Yield a path aside for each of `places`, files or folders in one folder, under its own name.

    They are moved to their places afterwards; on any failure none of them is left. Raises
    `UserError` if a place is taken, and for a full disk.
    """
    parent = places[0].parent
    for place in places:
        if place.exists():
            raise UserError(f"--output: {place} is there already: name another, or remove it.")
    aside = parent / f".incomplete-{places[0].name}-{os.getpid()}"
    moved: list[Path] = []
    try:
        aside.mkdir(parents=True)
        yield [aside / place.name for place in places]
        for place in places:
            (aside / place.name).rename(place)
            moved.append(place)
    except BaseException as error:
        for place in moved:
            shutil.rmtree(place) if place.is_dir() else place.unlink()
        if isinstance(error, OSError):
            raise storage_error(error, f"Writing {places[0]}", "--output") from error
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
