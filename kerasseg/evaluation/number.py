"""Numbers as a table shows them."""

import math
from typing import Any

from markupsafe import Markup

NO_NUMBER = "\N{EN DASH}"


def in_words(value: float | None) -> str:
    """Three decimals below 10, fewer above; a dash for what does not exist."""
    if value is None or math.isnan(value):
        return NO_NUMBER
    size = abs(value)
    words = f"{value:.{3 if size < 10 else 2 if size < 100 else 1}f}"
    return words if float(words) else words.removeprefix("-")


def interval_in_words(interval: dict[str, Any] | None) -> str:
    """The mean and, in small, its interval, of `means_as_json`."""
    if interval is None:
        return NO_NUMBER
    mean = in_words(interval["mean"])
    if interval["low"] is None:
        return mean
    low, high = in_words(interval["low"]), in_words(interval["high"])
    return mean + Markup("<small>{} to {}</small>").format(low, high)
