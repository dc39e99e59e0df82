"""The SavedModels below a folder: `NAME/VERSION/saved_model.pb`."""

from pathlib import Path

from kerasseg.errors import UserError

FILE = "saved_model.pb"


def version_folders(root: Path) -> dict[str, dict[int, Path]]:
    """Model name -> version -> folder; what is no model is passed over.

    A folder that goes away meanwhile is one that is not there.
    """
    found: dict[str, dict[int, Path]] = {}
    for path in root.glob(f"*/*/{FILE}"):
        folder = path.parent
        if folder.name.isdecimal():
            found.setdefault(folder.parent.name, {})[int(folder.name)] = folder
    return found


def check_models_folder(root: Path) -> None:
    """Raises `UserError` if there is no model, and says which folder was meant if that is seen."""
    if not root.is_dir():
        raise UserError(f"MODELS_DIR: {root} is no folder (looked from {Path.cwd()}).")
    if version_folders(root):
        return
    meant = None
    if (root / FILE).is_file():
        meant = root.resolve().parent.parent
    elif any(path.parent.name.isdecimal() for path in root.glob(f"*/{FILE}")):
        meant = root.resolve().parent
    hint = f"name {meant} instead" if meant else "make one with kerasseg export"
    raise UserError(f"MODELS_DIR: {root} holds no NAME/VERSION/{FILE}: {hint}.")


def fingerprint(folder: Path) -> tuple:
    """Names, sizes and times of all files: another one where a copy has gone on."""
    result = []
    for path in sorted(folder.rglob("*")):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        result.append((str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns))
    return tuple(result)
