"""Messages for mistakes in a config: which setting, what was found, what is allowed."""

import difflib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, TypeGuard, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from kerasseg.config.experiment import Experiment
from kerasseg.config.loss import TERMS, term_name

_A_LOSS = "each a loss with its weight and options, such as [{dice: 0.5}, {focal: 0.5, gamma: 2}]"
_MISSING: Any = object()


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a config file, for editors that complete YAML."""
    schema = Experiment.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "kerasseg experiment"
    return schema


def known_keys(model: type[BaseModel] = Experiment, prefix: str = "") -> Iterator[str]:
    """Yield every setting by its dotted name, sections included."""
    for name, field in model.model_fields.items():
        yield prefix + name
        if _is_model(field.annotation):
            yield from known_keys(field.annotation, f"{prefix}{name}.")


def _is_model(annotation: Any) -> TypeGuard[type[BaseModel]]:
    """Say whether an annotation is a section; to Python 3.10 `tuple[int, ...]` is a type, too."""
    is_class = isinstance(annotation, type) and get_origin(annotation) is None
    return is_class and issubclass(annotation, BaseModel)


def look_up(values: Any, key: str, default: Any = None) -> Any:
    """Return what a config, as read from YAML, has at `section.key`.

    Items of a list go by their number: `loss.0.dice`.
    """
    for part in key.split("."):
        if isinstance(values, list) and part.isdigit() and int(part) < len(values):
            values = values[int(part)]
        elif isinstance(values, dict) and part in map(str, values):
            values = next(value for name, value in values.items() if str(name) == part)
        else:
            return default
    return values


def explain(
    error: ValidationError,
    values: dict[str, Any],
    where: str,
    overrides: Iterable[str],
    model: type[BaseModel] = Experiment,
) -> str:
    """Return a line per mistake.

    Args:
        values: The config as read from YAML, with the overrides applied.
        where: The file of the config.
        overrides: Dotted names of the settings that were overridden; their lines name no file.
    """
    names = set(overrides)
    lines = [_explain(path, e, values, where, names, model) for path, e in _mistakes(error, values)]
    return "\n".join(dict.fromkeys(lines))


def nearest(key: str, model: type[BaseModel] = Experiment, beside: Iterable[str] = ()) -> str:
    """Return ' Did you mean training.epochs?', or the settings beside the unknown one.

    `beside` are dotted names that `known_keys` does not have: settings within a list.
    """
    known = list(dict.fromkeys([*known_keys(model), *beside]))
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
    if section.rpartition(".")[2].isdigit():  # a list's item
        siblings = [name.rpartition(".")[2] for name in siblings]
    return f" Known here: {', '.join(siblings)}." if siblings else ""


def show(value: Any) -> str:
    """Return a value together with its kind: '3 (whole number)'."""
    kinds = {str: "text", bool: "true/false", int: "whole number", float: "number"}
    kinds |= {dict: "section", list: "list", type(None): "nothing"}
    return f"{json.dumps(value, default=str)} ({kinds.get(type(value), type(value).__name__)})"


def _mistakes(error: ValidationError, values: dict[str, Any]) -> list[tuple[list[str], Any]]:
    """Return the place and pydantic's account of each mistake that does not follow from another.

    Where a number or a list may stand, pydantic says for each why the value is not that: the one
    that got deepest into what the user wrote is kept.
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
    """Return the place of a mistake as the user wrote it.

    That is pydantic's place without the names that pydantic gives the members of a union.
    """
    parts = [str(part) for part in error["loc"] if part != "[key]"]
    if error["type"] == "missing":  # a list that is too short: speak of the list
        parts.pop()
    if parts[:1] == ["loss"]:
        del parts[2:3]  # the term's name
    path: list[str] = []
    node: Any = values
    for part in parts:
        child = look_up(node, part, default=_MISSING)
        if child is _MISSING and isinstance(node, dict | list) and not part.isidentifier():
            continue  # tuple[...], of which the next part is one
        if child is _MISSING and not isinstance(node, dict):
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
        return f"{where}: {str(error['ctx']['error']).rstrip('.')}."
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
        sections = _locate(path[:-1], model)[1]
        beside = [".".join([*path[:-1], name]) for s in sections for name in s.model_fields]
        return f"{where}: {key}: unknown setting.{nearest(key, model, beside)}"
    message = error["msg"].replace("Input should be", "should be")
    if error["loc"][-1] == "[key]":
        return f"{where}: {key}: the key {path[-1]} {message}."
    hint = f" Quote it: {key}='\"…\"'." if error["type"] == "string_type" else ""
    allowed = describe_allowed(path, values, model) or message
    if isinstance(found, str) and "," in found and allowed.startswith("a list"):
        hint = f" Write [{found}]."
    elif isinstance(found, str) and allowed == _KINDS["object"] and path[-1].isdigit():
        hint = f" Write {{{found}: {{}}}} for one with its defaults."
    return f"{where}: {key}: found {show(found)}, allowed: {allowed}.{hint}"


def _explain_term(found: Any) -> str:
    """Explain why an item of `loss` is no term."""
    expected = f"expected one of {', '.join(TERMS)} with its weight, such as {{dice: 0.5}}"
    if not isinstance(found, dict):
        return f"{expected}, found {show(found)}."
    names = [name for name in TERMS if name in found]
    if names:
        terms = ", ".join(f"{{{name}: {json.dumps(found[name], default=str)}}}" for name in names)
        return f"found {' and '.join(names)}, but a term is one loss: make it [{terms}]."
    near = [m for k in found for m in difflib.get_close_matches(str(k), TERMS, n=1)]
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"{expected}, found keys {', '.join(map(str, found)) or 'none'}.{hint}"


def _explain_option(path: list[str], values: dict[str, Any]) -> str:
    """Explain why `loss.<number>.<option>` does not exist."""
    options = {name: [o for o in term.model_fields if o != name] for name, term in TERMS.items()}
    *term, option = path
    name = term_name(look_up(values, ".".join(term))) or ""
    near = difflib.get_close_matches(option, options[name], n=1)
    others = [other for other in TERMS if option in options[other]]
    hint = f" Did you mean {near[0]}?" if near else ""
    if not near and others:
        hint = f" It is an option of {' and '.join(others)}."
    return f"unknown option of {name}.{hint} Known for {name}: {', '.join(options[name])}."


def describe_allowed(path: Sequence[str], values: dict[str, Any], model: type[BaseModel]) -> str:
    """Describe the values that the setting at `path` may have: 'a whole number, at least 1'."""
    if path[0] == "loss":
        model, path = TERMS[term_name(look_up(values, ".".join(path[:2]))) or ""], path[2:]
    field, _, depth = _locate(path, model)
    if field is None:
        return ""
    annotated: Any = Annotated  # a tuple in its brackets is more than mypy reads
    limited = annotated[(field.annotation, "without its default", *field.metadata)]
    node = TypeAdapter(limited).json_schema()
    for _ in range(depth):
        options = (o for o in node.get("anyOf", ()) if o.get("type") in ("array", "object"))
        node = next(options, node)
        parts = [node.get("items"), node.get("additionalProperties")]
        parts += [*node.get("prefixItems", ()), *node.get("patternProperties", {}).values()]
        node = next((part for part in parts if isinstance(part, dict)), {})
    return _describe(node)


def _locate(
    path: Sequence[str], model: type[BaseModel]
) -> tuple[FieldInfo | None, list[type[BaseModel]], int]:
    """Find the setting that a place in a config belongs to.

    Returns the innermost setting on the way; the sections that its value may hold; and how many
    parts of the path, numbers of items or keys of values, lead on from there.
    """
    field, sections, depth = None, [model], 0
    for part in path:
        found = next((s.model_fields[part] for s in sections if part in s.model_fields), None)
        if found is None:
            depth += 1
        else:
            field, sections, depth = found, _sections(found.annotation), 0
    return field, sections, depth


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """Find the groups of settings in a type such as `tuple[Flip | Blur, ...] | None`."""
    if _is_model(annotation):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections(part)]


_KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "object": "a section",
    "null": "null",
}
_LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "under {}",
    "pattern": "of {}",
    "maxLength": "at most {} long",
}

_CHARACTERS = {
    r"^[\w][\w.-]*$": "letters, digits, _, . and -",
    r"^[A-Za-z0-9]+$": "letters and digits",
}
"""The patterns of our settings in words."""


def _describe(node: dict[str, Any]) -> str:
    """Describe the JSON schema of one setting: 'a whole number, at least 1, at most 64'."""
    if "anyOf" in node or "oneOf" in node:
        options = node.get("anyOf") or node["oneOf"]
        parts = list(dict.fromkeys(_describe(option) for option in options))
        joint = "; or " if any(", " in part for part in parts) else " or "
        return joint.join(part for part in parts if part)
    if "enum" in node:
        return "one of " + ", ".join(map(str, node["enum"]))
    if "const" in node:
        return str(node["const"])
    if "$ref" in node:
        return _KINDS["object"]
    if node.get("type") == "array":
        items = node.get("prefixItems")
        each = _describe(items[0] if items else node.get("items", {}))
        least = f" of at least {node['minItems']}" if node.get("minItems") else ""
        return f"a list of {len(items)}, each {each}" if items else f"a list{least}, each {each}"
    limits = [
        text.format(_CHARACTERS.get(node[key], node[key]))
        for key, text in _LIMITS.items()
        if key in node
    ]
    return ", ".join(filter(None, [_KINDS.get(node.get("type", "")), *limits]))
