"""Walking the folder of a data set."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from kerasseg.errors import UserError

_NOT_DATA = ("__MACOSX", ".git", ".ipynb_checkpoints")

_NIFTI = (".nii", ".nii.gz")


def unpacked(path: Path) -> Path:
    """Return the file in a folder that an archiver made of `<name>.nii.gz`, or `path` itself.

    Some unpack scan.nii.gz to scan.nii/<the name before it was packed>.nii, so that only the
    folder says which case and modality it is.
    """
    if path.name.lower().endswith(_NIFTI) and path.is_dir():
        inside = [c for c in path.iterdir() if not c.name.startswith((".", *_NOT_DATA))]
        if len(inside) == 1 and inside[0].name.lower().endswith(_NIFTI) and inside[0].is_file():
            return inside[0]
    return path


def files_below(root: Path, setting: str = "data.root") -> Iterator[tuple[Path, list[str]]]:
    """Yield every folder under `root` with its files, both sorted. Links to folders are followed.

    A folder that is one `unpacked` file counts as the file.

    Raises `UserError` when `root` is no folder that can be read, or for a link that leads back to
    a folder which holds it.
    """
    check_folder(root, setting)

    def refuse(error: OSError) -> None:
        raise UserError(f"{setting}: {error.filename} cannot be listed: {error.strerror}.")

    for folder, subfolders, names in os.walk(root, onerror=refuse, followlinks=True):
        for name in subfolders:
            _refuse_loop(Path(folder) / name)
        as_files = {n for n in subfolders if unpacked(Path(folder) / n) != Path(folder) / n}
        subfolders[:] = sorted({*subfolders}.difference(_NOT_DATA, as_files))
        # macOS adds a hidden ._name beside every file it copies.
        yield Path(folder), sorted(n for n in {*names, *as_files} if not n.startswith("."))


def check_folder(root: Path, setting: str = "data.root") -> None:
    """Raise `UserError` when `root` is no folder."""
    if not root.exists():
        raise UserError(
            f"{setting}: {root} does not exist (looked from {Path.cwd()}): set {setting} to the "
            "folder of the scans."
        )
    if not root.is_dir():
        raise UserError(f"{setting}: {root} is a file, expected the folder of the scans.")


def _refuse_loop(path: Path) -> None:
    if not path.is_symlink():
        return
    target = path.resolve()
    # Every folder on the way here counts: several links may form a loop together.
    if any(parent.resolve().is_relative_to(target) for parent in path.absolute().parents):
        raise UserError(
            f"{path}: is a symbolic link to {target}, a folder that holds the link itself: "
            "remove the link."
        )


def ranges(numbers: Iterable[int]) -> str:
    """Write numbers as ranges: [3, 4, 5, 9] becomes '3-5, 9'."""
    parts: list[list[int]] = []
    for n in sorted(numbers):
        if parts and n == parts[-1][-1] + 1:
            parts[-1].append(n)
        else:
            parts.append([n])
    return ", ".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)
