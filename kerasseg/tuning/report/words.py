"""Settings and their values in words."""

import textwrap
from typing import Any

from kerasseg.tuning.parameter import Parameter


def choices_in_words(parameter: Parameter, lines: int = 3, width: int = 20) -> list[str]:
    """The choices in at most so many lines of so many characters, no two the same."""
    short = [_shortened(value_in_words(choice), lines, width) for choice in parameter.choices]
    if len(set(short)) < len(short):
        short = [f"{n + 1}: {word}" for n, word in enumerate(short)]
    return short


def range_in_words(parameter: Parameter) -> str:
    """What is searched, and when the setting is in use at all."""
    if parameter.is_category:
        words = ", ".join(map(value_in_words, parameter.choices))
    else:
        words = f"{parameter.lowest:.4g} to {parameter.highest:.4g}"
        words += ", logarithmic" if parameter.log else ""
        words += ", whole numbers" if parameter.kind == "int" else ""
    for name, wanted in parameter.when.items():
        words += f"; if {name} is {' or '.join(map(value_in_words, wanted))}"
    return words


def value_in_words(value: Any) -> str:
    """A value as a table shows it: lists and sections as YAML has them, in one line."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return f"[{', '.join(_item(item) for item in value)}]"
    return f"{{{_item(value)}}}" if isinstance(value, dict) else str(value)


def _item(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {value_in_words(entry)}" for name, entry in value.items())
    return value_in_words(value)


def _shortened(words: str, lines: int, width: int) -> str:
    """Of what is longer, both ends."""
    found = textwrap.wrap(words, width, break_on_hyphens=False)
    if len(found) > lines:
        half = width * lines // 2 - (2 if lines > 1 else 1)
        found = textwrap.wrap(f"{words[:half]}\N{HORIZONTAL ELLIPSIS}{words[-half:]}", width)
    return "\n".join(found)
