"""A hook of mkdocs: the pages `docs/settings.md` and `docs/commands.md` are filled from the code.

Each of them holds a comment, `<!-- settings -->` or `<!-- commands -->`, in whose place `make docs`
puts what this file finds in the sections of `kerasseg.config` and in the command line.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined, to_jsonable_python
from typer.main import get_command

from kerasseg.cli.main import EXAMPLES, build_program
from kerasseg.config.augment import Term
from kerasseg.config.experiment import Experiment
from kerasseg.config.loss import TERMS
from kerasseg.config.messages import describe_allowed, known_keys
from kerasseg.config.tuning import SearchSettings, TuneFile


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return the page with the reference in the place of its comment, as mkdocs asks for it."""
    for name, make in {"settings": settings, "commands": commands}.items():
        comment = f"<!-- {name} -->"
        if comment in markdown:
            markdown = markdown.replace(comment, make())
    return markdown


def settings() -> str:
    """Return the tables of all settings of an experiment and of a tune file."""
    keys = list(known_keys())
    sections = dict.fromkeys(key.partition(".")[0] for key in keys)
    blocks = [
        _table(f"`{section}`", Experiment, [key for key in keys if key.startswith(f"{section}.")])
        for section in sections
    ]
    blocks.append(_table("`loss`", Experiment, ["loss"]))
    for name, model in TERMS.items():
        blocks.append(_table(f"A term `{name}` of `loss`", model, list(model.model_fields)))
    for name, field in Term.model_fields.items():
        model = next(part for part in field.annotation.__args__ if part is not type(None))
        title = f"A transform `{name}` of `augment.transforms`"
        blocks.append(_table(title, model, list(model.model_fields)))
    top = [name for name in TuneFile.model_fields if name != "search"]
    blocks.append(_table("A tune file", TuneFile, top))
    search = [f"search.{name}" for name in SearchSettings.model_fields]
    blocks.append(_table("`search` of a tune file", TuneFile, search))
    return "\n\n".join(block for block in blocks if block)


def _table(title: str, model: type[BaseModel], keys: list[str]) -> str:
    """Return a heading and a table with a row for each setting that is no section."""
    rows = []
    for key in keys:
        field = _field(model, key)
        if field.description is None:
            continue  # a section, whose settings have rows of their own
        values = "" if key == "loss" else _allowed(key, model)
        rows.append(
            f"| `{key}` | {_default(field)} | {_cell(values)} | {_cell(field.description)} |"
        )
    if not rows:
        return ""
    head = f"## {title}\n\n| setting | default | allowed | meaning |\n|---|---|---|---|"
    return "\n".join([head, *rows])


def _field(model: type[BaseModel], key: str) -> Any:
    *sections, name = key.split(".")
    for section in sections:
        model = model.model_fields[section].annotation  # a section
    return model.model_fields[name]


def _allowed(key: str, model: type[BaseModel]) -> str:
    text = describe_allowed(key.split("."), {}, model)
    return text.replace(r"text, of ^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$", "an import path")


def _default(field: Any) -> str:
    if field.is_required():
        return "must be given"
    if field.default is PydanticUndefined:
        return "depends on others"
    value = field.default
    if isinstance(value, tuple):  # of `loss` it has terms, shown as they are written in a config
        terms = [term for term in value if isinstance(term, BaseModel)]
        value = [term.model_dump(exclude_unset=True) for term in terms] or value
    value = to_jsonable_python(value)
    text = json.dumps(value, ensure_ascii=False).replace('"', "")
    return f"`{text}`" if text else "empty"


def _cell(text: str) -> str:
    """Return a text that a cell of a table can hold."""
    for character in "|*_<>[]{}":
        text = text.replace(character, f"\\{character}")
    text = re.sub(r"docs/(\w+)\.md", r"[\1](\1.md)", text)
    return " ".join(text.split())


def commands() -> str:
    """Return a part for each verb: what it does, its arguments, options and examples."""
    return "\n\n".join(_verb(name, verb) for name, verb in verbs(get_command(build_program())))


def verbs(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every verb's name, such as "bench data", and its command (of click)."""
    for name, verb in group.commands.items():
        if hasattr(verb, "commands"):
            yield from verbs(verb, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", verb


def _verb(name: str, verb: Any) -> str:
    context = verb.make_context(f"kerasseg {name}", [], resilient_parsing=True)
    records = [parameter.get_help_record(context) for parameter in verb.get_params(context)]
    rows = [
        f"| `{usage.replace('|', ' or ').replace(' <list[str]>', '')}` | {_cell(meaning)} |"
        for usage, meaning in filter(None, records)  # None: hidden
        if "--help" not in usage
    ]
    lines = [f"## `kerasseg {name}`", "", _cell(verb.help.partition("\b")[0]), ""]
    if rows:
        lines += ["| argument or option | meaning |", "|---|---|", *rows, ""]
    return "\n".join([*lines, "```bash", *EXAMPLES[name], "```"])
