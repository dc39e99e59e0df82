"""The base class of all sections of settings, and the types that several of them share."""

import difflib
import importlib
import inspect
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from kerasseg import anatomy
from kerasseg.errors import UserError


def _canonical_modality(name: str) -> str:
    return anatomy.MODALITY_ALIASES.get(name.lower(), name.lower())


Modality = Annotated[str, Field(pattern=r"^[A-Za-z0-9]+$"), AfterValidator(_canonical_modality)]
Folder = Annotated[Path, AfterValidator(Path.expanduser)]
Voxels = Annotated[int, Field(ge=1, le=4096)]
Millimetres = Annotated[float, Field(gt=0.0, le=100.0)]
Pixels = Annotated[int, Field(ge=8, le=16384)]
IMPORT_PATH = {"type": "string", "pattern": r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$"}
"""The JSON schema of an import path."""


def setting(default: Any, description: str, *, unit: str | None = None, **limits: Any) -> Any:
    """Return a pydantic field with a description and, for the docs and the schema, a unit.

    `default` may be a function; it gets the settings above this one in its section.
    """
    kind = {"default_factory": default} if callable(default) else {"default": default}
    return Field(
        **kind,
        description=f"{description} [{unit}]" if unit else description,
        json_schema_extra={"unit": unit} if unit else None,
        **limits,
    )


class Section(BaseModel):
    """A group of settings; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def is_changed(self, name: str) -> bool:
        """Return whether a setting has another value than its default."""
        field = type(self).model_fields[name]
        default = field.get_default(call_default_factory=True, validated_data=dict(self))
        return bool(getattr(self, name) != default)

    def check_only_for(
        self, section: str, names: Iterable[str], setting: str, values: Sequence[str]
    ) -> None:
        """Raise `ValueError` if one of `names` is changed, but `setting` has none of `values`."""
        found = getattr(self, setting)
        changed = [name for name in names if self.is_changed(name)]
        if changed and found not in values:
            raise ValueError(
                f"{section}.{changed[0]} is for {section}.{setting}={' or '.join(values)}, but it "
                f"is {found}"
            )


def check_unique(setting: str, names: Sequence[str], kind: str) -> None:
    """Raise `ValueError` if a list names something twice; `kind` says what, such as "an axis"."""
    if len(set(names)) < len(names):
        raise ValueError(f"{setting} {list(names)} names {kind} twice")


def is_import_path(name: Any) -> bool:
    """Return whether a text could be an import path such as keras.callbacks.CSVLogger."""
    parts = name.split(".") if isinstance(name, str) else []
    return len(parts) > 1 and all(part.isidentifier() for part in parts)


def name_or_path(setting: str, names: Iterable[str], kind: str) -> Callable[[Any], Any]:
    """Return a validator of a setting that takes one of `names`, or an import path of a `kind`."""

    known = tuple(names)  # a value that cannot be hashed is looked for, too

    def check(name: Any) -> Any:
        if name not in known and not is_import_path(name):
            raise ValueError(
                f"{setting}: found {json.dumps(name)}, expected one of {', '.join(known)}, or the "
                f"import path of {kind} of your own (docs/extending.md)"
            )
        return name

    return check


def import_object(setting: str, path: str, kind: str, base: type | None = None) -> Any:
    """Import what a setting names by its import path.

    Raises `UserError` if it cannot be imported, or is something else.

    Args:
        path: The import path, such as keras.callbacks.CSVLogger.
        kind: What it should be, for messages, such as "a function".
        base: The class that it must be an instance of; None: it must be callable.
    """
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        near = difflib.get_close_matches(name, dir(sys.modules.get(module)), n=1)
        hint = f" Did you mean {module}.{near[0]}?" if near else ""
        raise UserError(
            f"{setting}: {path} cannot be imported ({error}).{hint} Give the import path of "
            f"{kind}; the folder of a module of your own must be in the environment variable "
            "PYTHONPATH."
        ) from None
    if not (callable(found) if base is None else isinstance(found, base)):
        raise UserError(f"{setting}: {path} is {found!r:.60}, expected {kind}.")
    return found


def check_arguments(
    setting: str,
    path: str,
    function: Callable[..., Any],
    positional: Sequence[Any],
    options: Mapping[str, Any],
) -> None:
    """Raise `UserError` if a function does not take the options of a config.

    It is called with as many arguments as `positional` says before the options.
    """
    try:
        inspect.signature(function).bind(*positional, **options)
    except TypeError as error:
        raise UserError(
            f"{setting}: {path} cannot be called with {len(positional)} argument(s) and the "
            f"options {dict(options)} ({error}): see docs/extending.md for what it gets."
        ) from None


def imported_entry(setting: str, entry: Any) -> tuple[str, dict[str, Any]]:
    """Return the import path of a list's entry `{import.path: {option: value}}`, and its options.

    Raises `ValueError` if the entry has another form.
    """
    if is_imported_entry(entry):
        ((path, options),) = entry.items()
        return path, options
    raise ValueError(
        f"{setting}: found {json.dumps(entry, default=str)}, expected one import path with its "
        "options, such as {my_module.my_function: {}}"
    )


def is_imported_entry(entry: Any) -> bool:
    """Return whether an entry of a list has the form `{import.path: {option: value}}`."""
    items = list(entry.items()) if isinstance(entry, Mapping) else []
    return len(items) == 1 and is_import_path(items[0][0]) and isinstance(items[0][1], dict)
