"""The settings by their dotted names: all there are, what they may be, and what one is set to."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from kerasseg.config import Experiment


def json_schema() -> dict[str, Any]:
    """JSON schema of a config file, for editors that complete YAML."""
    schema = Experiment.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "kerasseg experiment"
    return schema


def known_keys(model: type[BaseModel] = Experiment, prefix: str = "") -> Iterator[str]:
    """Every setting by its dotted name, sections too."""
    for name, field in model.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from known_keys(field.annotation, f"{prefix}{name}.")


def look_up(values: Any, key: str, default: Any = None) -> Any:
    """What a config, as read from YAML, has at `section.key`; list items go by their number."""
    for part in key.split("."):
        if isinstance(values, list) and part.isdigit() and int(part) < len(values):
            values = values[int(part)]
        elif isinstance(values, dict) and part in map(str, values):
            values = next(value for name, value in values.items() if str(name) == part)
        else:
            return default
    return values
