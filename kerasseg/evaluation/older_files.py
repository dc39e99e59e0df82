"""Label maps and probabilities of an earlier evaluation in the same folder."""

from collections.abc import Collection
from pathlib import Path

from kerasseg.errors import storage_error
from kerasseg.evaluation.case_files import KINDS, Kind

_ENDINGS = (".nii.gz", ".png", ".tif")


def remove_older_files(
    folder: Path, kinds: Collection[Kind], written: Collection[Path], setting: str
) -> list[str]:
    """Remove, of the kinds that were written anew, what is of other cases than `written`, so that
    the files are those of the tables. Returns a warning for each kind that was not, but is there.
    """
    warnings = []
    for kind in KINDS:
        there = [p for p in sorted((folder / kind).glob("[!.]*")) if p.name.endswith(_ENDINGS)]
        if there and kind not in kinds:
            warnings.append(
                f"The files in {kind}/ are of an earlier evaluation, not of this one: "
                f"--save-{kind} writes them anew."
            )
        for path in there if kind in kinds else ():
            if path not in written:
                try:
                    path.unlink()
                except OSError as error:
                    raise storage_error(error, f"Removing {path}", setting) from error
    return warnings
