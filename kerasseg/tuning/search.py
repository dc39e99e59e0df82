"""A search: what a tune file and its overrides ask for, and `search.yaml`, which keeps it."""

import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from kerasseg import anatomy
from kerasseg.config.experiment import Experiment
from kerasseg.config.load import (
    DEMO_CONFIG,
    apply_override,
    differences,
    find_config,
    make_experiment,
    parse_yaml,
    read_yaml,
)
from kerasseg.config.messages import explain
from kerasseg.config.tuning import SearchSettings, TuneFile, known_direction
from kerasseg.errors import UserError
from kerasseg.evaluation.scores import score_columns
from kerasseg.files import write_text
from kerasseg.tuning.space import Parameter, check_space, read_space, same

FILE_NAME = "search.yaml"
ORACLE_FILE = "oracle.json"
"""The tuner's state, beside `search.yaml`."""
DEFAULT_FILE = DEMO_CONFIG.parent / "tune_phantom.yaml"
"""The tune file of `kerasseg tune` without arguments."""


@dataclass(frozen=True)
class Search:
    """A search that has been read and checked.

    Attributes:
        file: the tune file.
        space: the parameters, each behind those that it depends on.
        values: the base experiment as it is written, without defaults, as those may depend on what
            is searched.
    """

    file: Path
    settings: SearchSettings
    space: tuple[Parameter, ...]
    values: dict[str, Any]

    @property
    def folder(self) -> Path:
        """The folder that holds everything of the search."""
        return self.settings.root / self.settings.name

    @cached_property
    def base(self) -> Experiment:
        """The experiment that the trials start from."""
        return make_experiment(json.loads(json.dumps(self.values)))

    @property
    def epochs(self) -> int:
        """The epochs of a trial, of hyperband the most."""
        return self.settings.epochs or self.base.training.epochs

    def as_yaml(self) -> str:
        """Return the content of `search.yaml`: the settings of the search, the base as it is
        written, and the whole experiment that it makes."""
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
    file = find_config(file or DEFAULT_FILE)
    values = read_yaml(file)
    of_search = [text for text in overrides if re.match(r"\s*search\s*[.=]", text)]
    for override in of_search:
        _override_search(values, override)
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
    named = tune_file.base
    base = DEMO_CONFIG if named is None else file.parent / find_config(named)
    base_values = read_yaml(base)
    for override in tune_file.overrides:
        try:
            apply_override(base_values, override)
        except UserError as error:
            raise UserError(f"{file}: overrides: {error}") from None
    make_experiment(base_values, [text for text in overrides if text not in of_search], str(base))
    settings = tune_file.search
    space = read_space(settings.space, str(file), settings.tuner)
    search = Search(file, settings, space, base_values)
    _check_objective(settings.objective, search.base, str(file))
    of_volumes = settings.objective.startswith("val_volume_")
    for name in settings.space:
        if name.split(".")[0] in ("evaluation", "postprocessing") and not of_volumes:
            raise UserError(
                f"{file}: search.space: {name} cannot be searched: it changes the scores of whole "
                f"volumes alone, and search.objective is {settings.objective}: leave it out, or "
                "set search.objective=val_volume_dice_mean (docs/tuning.md)."
            )
    known = known_direction(settings.objective)
    if known is None and "direction" not in settings.model_fields_set:
        raise UserError(
            f"{file}: search.direction is needed, as nothing is known here of "
            f"{settings.objective}: set it to max where more is better, or to min."
        )
    if known not in (None, settings.direction):
        raise UserError(
            f"{file}: search.direction is {settings.direction}, but {settings.objective} is better "
            f"the {'lower' if known == 'min' else 'higher'} it is: leave search.direction out, or "
            f"set it to {known}."
        )
    check_space(space, base_values, str(file))
    return search


def _override_search(values: dict[str, Any], override: str) -> None:
    """Apply an override to a tune file; the names within `search.space` have dots of their own."""
    key, equals, text = override.partition("=")
    name = key.strip().removeprefix("search.space.")
    if not equals or name == key.strip():
        apply_override(values, override)
        return
    parsed: dict[str, Any] = {}
    apply_override(parsed, f"entry={text}")
    section = values.setdefault("search", {})
    space = section.setdefault("space", {}) if isinstance(section, dict) else None
    if not isinstance(space, dict):
        raise UserError(f"override {override!r}: search.space is no section of the tune file.")
    if parsed["entry"] is None:
        space.pop(name, None)
    else:
        space[name] = parsed["entry"]


def _check_objective(name: str, experiment: Experiment, where: str) -> None:
    """Raise `UserError` for an objective that the experiment does not log."""
    target = experiment.model.target
    logged = ["loss"]
    for metric in ("dice", "iou", "precision", "recall"):
        logged += [metric, *(f"{metric}_{c}" for c in anatomy.tumour_channels(target))]
    known = ["val_dice_smoothed", *(f"val_{column}" for column in logged), *logged]
    validates_volumes = experiment.training.validate_volumes_every is not None
    if validates_volumes:
        known += [f"val_volume_dice_{column}" for column in score_columns(target)]
    # The user's own callbacks may log any name.
    if name in known or experiment.training.callbacks:
        return
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    if name.startswith("val_volume") and not validates_volumes:
        hint += " Whole volumes are validated with training.validate_volumes_every."
    raise UserError(
        f"{where}: search.objective: {name} is not logged.{hint} There are {', '.join(known)}."
    )


def read_search_file(folder: Path) -> tuple[SearchSettings, dict[str, Any]]:
    """Read `search.yaml` in the folder of a search.

    Returns its section `search`, and the whole file, in which `base` is as it was written and
    `experiment` has every setting. Raises `UserError` if there is no such file, or it does not hold
    a search.
    """
    path = folder / FILE_NAME
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path}: there is no such file, so {folder} is no folder of a search; name one that "
            "kerasseg tune wrote."
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    for section in ("search", "base"):
        if not isinstance(content, dict) or not isinstance(content.get(section), dict):
            raise UserError(f"{path}: expected a section {section}, found none.")
    try:
        return TuneFile.model_validate({"search": content["search"]}).search, content
    except ValidationError as error:
        raise UserError(explain(error, content, str(path), (), TuneFile)) from None


def write_search_file(search: Search) -> None:
    """Write `search.yaml` into the folder of a search."""
    search.folder.mkdir(parents=True, exist_ok=True)
    write_text(search.folder / FILE_NAME, search.as_yaml(), "search.root")


# These settings say where, how long and on what it is searched, not what.
_MAY_CHANGE = (
    "name",
    "root",
    "max_trials",
    "minutes",
    "baseline",
    "parallel",
    "stop_after_failures",
    "worker_timeout",
    "chief_timeout",
)
_BASE_MAY_CHANGE = (
    "run.name",
    "run.root",
    "records.workers",
    "records.root",
    "data.root",
    "pipeline.prefetch",
    "training.devices",
    "training.callbacks",
)


def check_folder(search: Search) -> bool:
    """Return whether the folder of a search holds trials of it, with which it goes on.

    Raises `UserError` with the differences if they are of another search.
    """
    path = search.folder / FILE_NAME
    if not path.exists():
        if (search.folder / ORACLE_FILE).exists():
            raise UserError(
                f"{search.folder} holds trials, but {FILE_NAME}, which says of which search, is "
                "gone: put it back, use another search.name, or remove the folder."
            )
        return False
    try:
        old, content = read_search_file(search.folder)
        base = make_experiment(content["base"], where=str(path))
    except UserError as error:
        raise UserError(f"{error}\nUse another search.name, or remove {search.folder}.") from None
    changed = _changed_settings(old, search.settings) + [
        difference
        for difference in differences(base, search.base, type(base).model_fields)
        if not difference.startswith(_BASE_MAY_CHANGE)
    ]
    if changed:
        raise UserError(
            f"{search.folder} belongs to another search: {'; '.join(changed)}. Set these back to "
            "go on with it, or search under another search.name."
        )
    return True


def _changed_settings(old: SearchSettings, new: SearchSettings) -> list[str]:
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    old_space, new_space = before.pop("space"), after.pop("space")
    changed = [
        f"search.{name}: {before[name]} -> {after[name]}"
        for name in after
        if name not in _MAY_CHANGE and not same(before[name], after[name])
    ]
    for name in {**old_space, **new_space}:
        one, other = (space.get(name, "not searched") for space in (old_space, new_space))
        if not same(one, other):
            changed.append(f"search.space: {name}: {one} -> {other}")
    return changed
