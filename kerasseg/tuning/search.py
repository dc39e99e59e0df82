"""A search: what a tune file and its overrides say, read and checked."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from kerasseg.config import Experiment
from kerasseg.config_file import DEMO_CONFIG, apply_override, make_experiment, read_yaml
from kerasseg.config_mistakes import explain
from kerasseg.errors import UserError
from kerasseg.settings.tuning import SearchSettings, TuneFile
from kerasseg.tuning.check_space import check_space
from kerasseg.tuning.objectives import check_objective
from kerasseg.tuning.parameter import Parameter
from kerasseg.tuning.space import read_space

DEFAULT_FILE = DEMO_CONFIG.parent / "tune_phantom.yaml"
"""What `python tune.py` alone runs."""
_SPACE = "search.space."
_OF_SEARCH = re.compile(r"\s*search\s*[.=]")


@dataclass(frozen=True)
class Search:
    """A search that has been read and checked.

    values:  the base experiment as it is written, without defaults, as those may depend on what is
             searched
    space:   the parameters, each after those that it depends on
    """

    file: Path
    settings: SearchSettings
    space: tuple[Parameter, ...]
    values: dict[str, Any]

    @property
    def folder(self) -> Path:
        """Everything of the search lies here."""
        return self.settings.root / self.settings.name

    @cached_property
    def base(self) -> Experiment:
        """The experiment that the trials start from."""
        return make_experiment(json.loads(json.dumps(self.values)))

    @property
    def epochs(self) -> int:
        """Epochs of a trial, of hyperband the most."""
        return self.settings.epochs or self.base.training.epochs

    def as_yaml(self) -> str:
        """What `search.yaml` holds: the settings of the search, the base as it is written, and the
        whole experiment that it makes."""
        return yaml.safe_dump(
            {
                "base_file": str(self.file),
                "search": json.loads(self.settings.model_dump_json()),
                "base": self.values,
                "experiment": json.loads(self.base.model_dump_json()),
            },
            sort_keys=False,
            default_flow_style=None,
        )


def load_search(file: Path | None, overrides: Sequence[str] = ()) -> Search:
    """Read a tune file, apply `search.key=value` overrides to it and all others to its base.

    Raises `UserError` for anything that is wrong with it: unknown settings, values that their
    limits refuse, a space that no experiment takes.
    """
    file = file or DEFAULT_FILE
    values = read_yaml(file)
    of_search = [text for text in overrides if _OF_SEARCH.match(text)]
    for override in of_search:
        _apply(values, override)
    if "search" not in values:
        raise UserError(
            f"{file}: there is no section search, so this is no tune file; the config of an "
            "experiment is named in one as its base (docs/tuning.md)."
        )
    try:
        tune_file = TuneFile.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        names = [text.partition("=")[0].strip() for text in of_search]
        raise UserError(explain(error, values, str(file), names, TuneFile)) from None
    base = DEMO_CONFIG if tune_file.base is None else file.parent / tune_file.base
    base_values = read_yaml(base)
    for override in tune_file.overrides:
        try:
            apply_override(base_values, override)
        except UserError as error:
            raise UserError(f"{file}: overrides: {error}") from None
    make_experiment(base_values, [text for text in overrides if text not in of_search], str(base))
    settings = tune_file.search
    search = Search(
        file, settings, read_space(settings.space, str(file), settings.tuner), base_values
    )
    check_objective(settings.objective, search.base, str(file))
    check_space(search.space, search.values, str(file))
    return search


def _apply(values: dict[str, Any], override: str) -> None:
    """As in any config, but the names within `search.space` have dots of their own."""
    key, equals, text = override.partition("=")
    name = key.strip().removeprefix(_SPACE)
    if not equals or name == key.strip():
        apply_override(values, override)
        return
    entry: dict[str, Any] = {}
    apply_override(entry, f"entry={text}")
    section = values.setdefault("search", {})
    space = section.setdefault("space", {}) if isinstance(section, dict) else None
    if not isinstance(space, dict):
        raise UserError(f"override {override!r}: search.space is no section of the tune file.")
    if entry["entry"] is None:
        space.pop(name, None)
    else:
        space[name] = entry["entry"]
