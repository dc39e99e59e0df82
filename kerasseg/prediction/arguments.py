"""What stands on the command line of `kerasseg predict`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kerasseg.errors import UserError

_SETTING = re.compile(r"^[a-z_]+(\.\w+)+=")


@dataclass(frozen=True)
class Arguments:
    """Run folders, what they are to predict, and settings that are to be others."""

    runs: tuple[Path, ...]
    inputs: tuple[Path, ...]
    settings: tuple[str, ...]


def split_settings(words: Sequence[str]) -> tuple[list[Path], tuple[str, ...]]:
    """Paths, and SECTION.KEY=VALUE that is no path."""
    settings = tuple(word for word in words if _SETTING.match(word) and not Path(word).exists())
    return [Path(word) for word in words if word not in settings], settings


def split_arguments(words: Sequence[str]) -> Arguments:
    """RUN [RUN…] INPUT [SECTION.KEY=VALUE…]: the last path is the input; files before it are, too.

    Raises `UserError` for fewer than two paths, and for an input that does not exist.
    """
    paths, settings = split_settings(words)
    if len(paths) < 2:
        raise UserError(
            "kerasseg predict needs a run folder and what it is to predict: kerasseg predict RUN "
            "INPUT --output DIR."
        )
    first = len(paths) - 1
    while first > 1 and paths[first].is_file() and paths[first - 1].is_file():
        first -= 1
    for path in paths[first:]:
        if not path.exists():
            raise UserError(f"INPUT: {path} does not exist (looked from {Path.cwd()}).")
    return Arguments(tuple(paths[:first]), tuple(paths[first:]), settings)
