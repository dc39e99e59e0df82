"""`search.yaml`, which says in a search's folder what is searched."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from kerasseg.config_mistakes import explain
from kerasseg.errors import UserError
from kerasseg.settings.tuning import SearchSettings, TuneFile

FILE_NAME = "search.yaml"
ORACLE = "oracle.json"
"""KerasTuner's state, beside it."""


def read_search_file(folder: Path) -> tuple[SearchSettings, dict[str, Any]]:
    """Section `search`, and the whole file, in which `base` is as it was written and `experiment`
    has every setting.

    Raises `UserError` for a folder without one, and for a file that is none.
    """
    path = folder / FILE_NAME
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path}: there is no such file, so {folder} is no folder of a search; name one that "
            "python tune.py wrote."
        ) from None
    except (OSError, yaml.YAMLError, ValueError, TypeError) as error:
        raise UserError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    for section in ("search", "base"):
        if not isinstance(content, dict) or not isinstance(content.get(section), dict):
            raise UserError(f"{path}: expected a section {section}, found none.")
    try:
        return TuneFile.model_validate({"search": content["search"]}).search, content
    except ValidationError as error:
        raise UserError(explain(error, content, str(path), (), TuneFile)) from None
