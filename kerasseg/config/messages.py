"""What is wrong in a config, in words: which setting, what was found, what is allowed.

The settings by their dotted names: all there are, what they may be, and what one is set to.
"""

import difflib
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError

from kerasseg.config.experiment import Experiment
from kerasseg.config.loss import TERMS, term_name


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


_A_LOSS = "each a loss with its weight and options, such as [{dice: 0.5}, {focal: 0.5, gamma: 2}]"
_NOWHERE: Any = object()


def explain(
    error: ValidationError,
    values: dict[str, Any],
    where: str,
    overrides: Iterable[str],
    model: type[BaseModel] = Experiment,
) -> str:
    """A line per mistake.

    values: the config as read, overrides applied. where: its file. overrides: the settings that
    were overridden, for which the line names no file. model: what the config is of.
    """
    names = set(overrides)
    lines = [_explain(path, e, values, where, names, model) for path, e in _mistakes(error, values)]
    return "\n".join(dict.fromkeys(lines))


def _mistakes(error: ValidationError, values: dict[str, Any]) -> list[tuple[list[str], Any]]:
    """Where each mistake is, and what pydantic says of it, without what only follows from another.

    Where a number or a list may stand, pydantic says of each why it is not that: the one that got
    deepest into what the user wrote is kept.
    """
    found = [
        (_path(e, values), e) for e in error.errors() if e["type"] != "default_factory_not_called"
    ]
    return [
        (path, e)
        for path, e in found
        if e["type"] == "missing" or not any(path == at[: len(path)] != at for at, _ in found)
    ]


def _path(error: Any, values: dict[str, Any]) -> list[str]:
    """Where the mistake is, as the user wrote it: pydantic's place without the kinds of a union."""
    parts = [str(part) for part in error["loc"] if part != "[key]"]
    if error["type"] == "missing":  # a list that is too short: speak of the list
        parts.pop()
    if parts[:1] == ["loss"]:
        del parts[2:3]  # the term's name
    path: list[str] = []
    node: Any = values
    for part in parts:
        child = look_up(node, part, default=_NOWHERE)
        if child is _NOWHERE and isinstance(node, dict | list) and not part.isidentifier():
            continue  # tuple[...], of which the next part is one
        if child is _NOWHERE and not isinstance(node, dict):
            break
        path.append(part)
        node = child
    return path


def _explain(
    path: list[str],
    error: Any,
    values: dict[str, Any],
    where: str,
    overridden: Iterable[str],
    model: type[BaseModel],
) -> str:
    key = ".".join(path)
    if error["type"] == "value_error":
        return f"{where}: {error['ctx']['error']}."
    if any(f"{key}.".startswith(f"{name}.") or name.startswith(f"{key}.") for name in overridden):
        where = "override"
    found = look_up(values, key, default=error["input"])
    if key == "loss":
        return f"{where}: loss: expected a list of terms, {_A_LOSS}, found {show(found)}."
    if error["type"] == "union_tag_not_found":
        return f"{where}: {key}: {_explain_term(found)}"
    if error["type"] == "extra_forbidden":
        if path[0] == "loss":
            return f"{where}: {key}: {_explain_option(path, values)}"
        return f"{where}: {key}: unknown setting.{nearest(key, model)}"
    message = error["msg"].replace("Input should be", "should be")
    if error["loc"][-1] == "[key]":
        return f"{where}: {key}: the key {path[-1]} {message}."
    quote = f" Quote it: {key}='\"…\"'." if error["type"] == "string_type" else ""
    allowed = _allowed(path, values, model) or message
    return f"{where}: {key}: found {show(found)}, allowed: {allowed}.{quote}"


def _explain_term(found: Any) -> str:
    """Why an item of `loss` is no term."""
    expected = f"expected one of {', '.join(TERMS)} with its weight, such as {{dice: 0.5}}"
    if not isinstance(found, dict):
        return f"{expected}, found {show(found)}."
    names = [name for name in TERMS if name in found]
    if names:
        terms = ", ".join(f"{{{name}: {_plain(found[name])}}}" for name in names)
        return f"found {' and '.join(names)}, but a term is one loss: make it [{terms}]."
    near = [m for k in found for m in difflib.get_close_matches(str(k), TERMS, n=1)]
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"{expected}, found keys {', '.join(map(str, found)) or 'none'}.{hint}"


def _explain_option(path: list[str], values: dict[str, Any]) -> str:
    """Why `loss.<number>.<option>` does not exist."""
    *term, option = path
    name = term_name(look_up(values, ".".join(term))) or ""
    near = difflib.get_close_matches(option, _options(name), n=1)
    others = [other for other in TERMS if option in _options(other)]
    hint = f" Did you mean {near[0]}?" if near else ""
    if not near and others:
        hint = f" It is an option of {' and '.join(others)}."
    return f"unknown option of {name}.{hint} Known for {name}: {', '.join(_options(name))}."


def _options(term: str) -> list[str]:
    return [name for name in TERMS[term].model_fields if name != term]


def _plain(value: Any) -> str:
    return json.dumps(value, default=str)


def nearest(key: str, model: type[BaseModel] = Experiment) -> str:
    """' Did you mean training.epochs?', or the settings beside an unknown one."""
    known = list(known_keys(model))
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


def show(value: Any) -> str:
    """A value with its kind: '3 (whole number)'."""
    kinds = {str: "text", bool: "true/false", int: "whole number", float: "number"}
    kinds |= {dict: "section", list: "list", type(None): "nothing"}
    return f"{json.dumps(value, default=str)} ({kinds.get(type(value), type(value).__name__)})"


def _allowed(path: Sequence[str], values: dict[str, Any], model: type[BaseModel]) -> str:
    schema = _schema(model)
    node: dict[str, Any] = schema
    for depth, part in enumerate(path):
        node = _resolve(node, schema)
        if "oneOf" in node:  # a term of the loss
            name = term_name(look_up(values, ".".join(path[:depth])))
            options = [_resolve(option, schema) for option in node["oneOf"]]
            node = next((o for o in options if name in o["properties"]), {})
        for option in node.get("anyOf", ()):  # null, or a number, or what has parts
            node = option if option.get("type") in ("array", "object") else node
        if node.get("type") == "array":
            items = node.get("prefixItems")
            node = items[min(int(part), len(items) - 1)] if items else node.get("items", {})
        else:
            node = node.get("properties", {}).get(part) or node.get("additionalProperties") or {}
    return _describe(_resolve(node, schema), schema)


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _resolve(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    return node


def _describe(node: dict[str, Any], schema: dict[str, Any]) -> str:
    """The words for one JSON-schema node: 'a whole number, at least 1, at most 64'."""
    if "anyOf" in node:
        parts = [_describe(_resolve(option, schema), schema) for option in node["anyOf"]]
        joint = "; or " if any(", " in part for part in parts) else " or "
        return joint.join(part for part in parts if part)
    if "enum" in node:
        return "one of " + ", ".join(map(str, node["enum"]))
    if "const" in node:
        return str(node["const"])
    if node.get("type") == "array":
        items = node.get("prefixItems")
        each = _describe(items[0] if items else node.get("items", {}), schema)
        least = f" of at least {node['minItems']}" if node.get("minItems") else ""
        return f"a list of {len(items)}, each {each}" if items else f"a list{least}, each {each}"
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
