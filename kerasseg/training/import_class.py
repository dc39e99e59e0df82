"""Classes of Keras, or of the user, that a config names by their import path."""

import importlib
from collections.abc import Mapping
from typing import Any

from kerasseg.errors import UserError


def import_class(setting: str, path: str, base: type, base_path: str) -> type:
    """Import a class by its path, such as keras.callbacks.CSVLogger.

    Args:
        setting: The setting that names it, for messages.
        path: The import path.
        base: The Keras class that it must be a subclass of.
        base_path: The import path of that class, for messages.

    Raises:
        UserError: If it cannot be imported or is another class.
    """
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"{setting}: {path} cannot be imported ({error}): give the import path of a "
            f"{base_path}; the folder of a module of your own must be in the environment variable "
            "PYTHONPATH."
        ) from None
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UserError(f"{setting}: {path} is not a {base_path}: name a subclass of it.")
    return found


def make_instance(setting: str, path: str, kind: type, arguments: Mapping[str, Any]) -> Any:
    """Make an instance of an imported class.

    Raises:
        UserError: If the class does not take the arguments.
    """
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{setting}: {path} does not take the arguments {dict(arguments)} ({error}): give "
            "those of its __init__."
        ) from None
