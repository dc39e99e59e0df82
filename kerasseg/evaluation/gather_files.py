"""The files of several evaluations in one folder."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from kerasseg.errors import storage_error
from kerasseg.write_aside import write_aside


def gather_files(files: Sequence[Path], folder: Path, setting: str) -> list[Path]:
    """Put `…/labels/a.nii.gz` as `folder/labels/a.nii.gz`, and so on; returns the new paths.

    They are second names of the same files (hard links), which take no space, or copies where the
    file system has none. Raises `UserError` where one cannot be written.
    """
    result = []
    for path in files:
        place = folder / path.parent.name / path.name
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, f"Making {place.parent}", setting) from error
        with write_aside(place, setting) as temporary:
            temporary.unlink(missing_ok=True)  # of a run that was killed
            try:
                os.link(path, temporary)
            except OSError:
                shutil.copyfile(path, temporary)
        result.append(place)
    return result
