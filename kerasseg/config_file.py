"""YAML and `section.key=value` overrides -> `Experiment`, with messages for people."""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from kerasseg.config import Experiment
from kerasseg.errors import UserError

DEMO_CONFIG = Path(__file__).parent.parent / "configs" / "phantom_3d.yaml"
"""What `python train.py` alone runs."""


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads 1e-4 as a number (YAML 1.1 asks for 1.0e-4) and refuses double keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int):
                raise yaml.constructor.ConstructorError(
                    None, None, f"a key must be a name, found {key!r}", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} stands here a second time", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)

_BAD_YAML = (yaml.YAMLError, ValueError, TypeError)
"""A date such as 2020-13-45 is a ValueError, a list as a key a TypeError."""


def load_experiment(path: Path | str | None, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment from a YAML file, then apply `section.key=value` overrides in order.

    Without a path the defaults stand. Raises `UserError` that names the file or override, the
    key, what was found, what is allowed and, for an unknown key, the nearest known one.
    """
    values: dict[str, Any] = {}
    where = "defaults"
    if path is not None:
        where = str(path)
        values = _read_yaml(Path(path))
    for override in overrides:
        _apply(values, override)
    try:
        return Experiment.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        overridden = {text.partition("=")[0].strip() for text in overrides}
        lines = [_explain(e, values, where, overridden) for e in error.errors()]
        raise UserError("\n".join(dict.fromkeys(lines))) from None


def dump_experiment(experiment: Experiment) -> str:
    """The resolved experiment as YAML that `load_experiment` reads back unchanged."""
    return yaml.safe_dump(
        json.loads(experiment.model_dump_json()), sort_keys=False, default_flow_style=None
    )


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


def differences(old: Experiment, new: Experiment, sections: Iterable[str]) -> list[str]:
    """The settings of `sections` in which two experiments differ: 'key: old -> new'."""
    keys = list(known_keys())
    leaves = [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]
    before, after = (json.loads(e.model_dump_json()) for e in (old, new))
    return [
        f"{key}: {_look_up(before, key)} -> {_look_up(after, key)}"
        for key in leaves
        if key.split(".")[0] in sections and _look_up(before, key) != _look_up(after, key)
    ]


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such config file{_other_configs(path)}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a config file: {error}.") from None
    try:
        values = yaml.load(text, Loader=_Loader)  # noqa: S506  (_Loader is a SafeLoader)
    except _BAD_YAML as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise UserError(f"{path}:{line} is not valid YAML: {problem}.") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: a config is sections of `key: value`, found {_show(values)}.")
    return values


def _other_configs(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else Path("configs")
    near = sorted(str(p) for p in folder.glob("*.yaml"))
    return f"; there are {', '.join(near)}" if near else ""


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not key:
        raise UserError(f"override {override!r}: expected section.key=value.")
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506
    except _BAD_YAML:
        raise UserError(f"override {override!r}: the value is not valid YAML.") from None
    node = values
    *sections, last = key.split(".")
    for section in sections:
        child = node.get(section)
        if child is None:
            child = node[section] = {}
        if not isinstance(child, dict):
            raise UserError(f"override {override!r}: {section} is no section.{_nearest(key)}")
        node = child
    node[last] = value


def _explain(error: Any, values: dict[str, Any], where: str, overridden: Iterable[str] = ()) -> str:
    parts = [str(part) for part in error["loc"] if part != "[key]"]
    if error["type"] == "missing":  # a list that is too short: speak of the list
        parts.pop()
    key = ".".join(parts)
    if any(key == name or key.startswith(name + ".") for name in overridden):
        where = "override"
    if error["type"] == "extra_forbidden":
        return f"{where}: {key}: unknown setting.{_nearest(key)}"
    if error["type"] == "value_error":
        return f"{where}: {error['ctx']['error']}."
    found = _show(_look_up(values, key, default=error["input"]))
    message = error["msg"].replace("Input should be", "should be")
    quote = f" Quote it: {key}='\"…\"'." if error["type"] == "string_type" else ""
    return f"{where}: {key}: found {found}, allowed: {_allowed(key) or message}.{quote}"


def _nearest(key: str) -> str:
    known = list(known_keys())
    last = key.rpartition(".")[2]
    alike = [n for n in known if difflib.get_close_matches(last, [n.rpartition(".")[2]])]
    match = difflib.get_close_matches(key, alike, n=1, cutoff=0.6)
    if not match:
        tails = {name.rsplit(".", 1)[-1]: name for name in known}
        match = [tails[tail] for tail in difflib.get_close_matches(last, tails, n=1, cutoff=0.75)]
    if match:
        return f" Did you mean {match[0]}?"
    section = key.rpartition(".")[0]
    siblings = [n for n in known if n.rpartition(".")[0] == section]
    return f" Known here: {', '.join(siblings)}." if siblings else ""


def _look_up(values: Any, key: str, default: Any = None) -> Any:
    for part in key.split("."):
        if isinstance(values, list) and part.isdigit() and int(part) < len(values):
            values = values[int(part)]
        elif isinstance(values, dict) and part in values:
            values = values[part]
        else:
            return default
    return values


def _show(value: Any) -> str:
    kinds = {str: "text", bool: "true/false", int: "whole number", float: "number"}
    kinds |= {dict: "section", list: "list"}
    return f"{json.dumps(value, default=str)} ({kinds.get(type(value), type(value).__name__)})"


def _allowed(key: str) -> str:
    schema = json_schema()
    node: dict[str, Any] = schema
    for part in key.split("."):
        node = _resolve(node, schema)
        if part.isdigit():
            items = node.get("prefixItems")
            node = items[min(int(part), len(items) - 1)] if items else node.get("items", {})
        else:
            node = node.get("properties", {}).get(part) or node.get("additionalProperties") or {}
    return _describe(_resolve(node, schema), schema)


def _resolve(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    return node


def _describe(node: dict[str, Any], schema: dict[str, Any]) -> str:
    """The words for one JSON-schema node: 'a whole number, at least 1, at most 64'."""
    if "anyOf" in node:
        parts = [_describe(_resolve(option, schema), schema) for option in node["anyOf"]]
        return " or ".join(part for part in parts if part)
    if "enum" in node:
        return "one of " + ", ".join(map(str, node["enum"]))
    if "const" in node:
        return str(node["const"])
    if node.get("type") == "array":
        items = node.get("prefixItems")
        each = _describe(items[0] if items else node.get("items", {}), schema)
        return f"a list of {len(items)}, each {each}" if items else f"a list, each {each}"
    names = {
        "integer": "a whole number",
        "number": "a number",
        "string": "text",
        "boolean": "true or false",
        "object": "a section",
        "null": "null",
    }
    limits = {
        "minimum": "at least {}",
        "exclusiveMinimum": "above {}",
        "maximum": "at most {}",
        "exclusiveMaximum": "under {}",
        "pattern": "matching {}",
        "maxLength": "at most {} long",
    }
    words = [names.get(node.get("type", ""), "")]
    words += [text.format(node[key]) for key, text in limits.items() if key in node]
    return ", ".join(word for word in words if word)
