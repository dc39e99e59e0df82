"""One of Albumentations' transforms by its name."""

import difflib
import inspect
import os
import warnings
from collections.abc import Mapping
from functools import lru_cache
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from kerasseg.slice_transforms.refused import REFUSED

SETTING = "augment.albumentations"


@lru_cache(maxsize=1)
def import_albumentations() -> ModuleType:
    """The package, imported when it is first named. Raises `ValueError` where it is missing."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # otherwise its import asks the network
    try:
        import albumentations
        import cv2
    except ImportError as error:
        raise ValueError(
            f"{SETTING} needs Albumentations, which cannot be imported ({error}): "
            "pip install 'kerasseg[albumentations]'"
        ) from error
    # Slices are made side by side already: benchmarks/albumentations_threads.py.
    cv2.setNumThreads(0)
    return albumentations


def build(name: str, arguments: Mapping[str, Any]) -> Any:
    """The transform `name` with its arguments, such as HorizontalFlip with {p: 0.5}.

    Raises `ValueError` for one that does not exist or is not for slices of z-scores, and for an
    unknown or wrong argument: Albumentations itself only warns of an unknown one.
    """
    kind = _kind(name)
    known = [n for n in inspect.signature(kind).parameters if n != "strict"]
    for argument in arguments:
        if argument not in known:
            near = difflib.get_close_matches(argument, known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ValueError(
                f"{SETTING}: {name} has no argument {argument}.{hint} Known: {', '.join(known)}"
            )
    p = arguments.get("p", 0.5)
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1:
        raise ValueError(f"{SETTING}: {name}: p {p!r} must be a number from 0 to 1")
    if arguments.get("mask_interpolation", 0) != 0:
        raise ValueError(
            f"{SETTING}: {name}: mask_interpolation must be 0 (nearest): any other would make "
            "labels that nobody drew"
        )
    if arguments.get("fill_mask") not in (None, 0):
        raise ValueError(
            f"{SETTING}: {name}: fill_mask must be 0, the background: what is filled is no tumour"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that another transform is newer or faster
        try:
            return kind(**arguments)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{SETTING}: {name}: {_words(error)}") from error


def names() -> list[str]:
    """Every transform that the installed version has."""
    package = import_albumentations()
    base = package.BasicTransform
    abstract = {base, package.DualTransform, package.ImageOnlyTransform, package.Transform3D}
    return sorted(
        name
        for name, kind in vars(package).items()
        if inspect.isclass(kind) and issubclass(kind, base) and kind not in abstract
    )


def _kind(name: str) -> Any:
    package = import_albumentations()
    if name in REFUSED:
        raise ValueError(f"{SETTING}: {name} cannot be used: {REFUSED[name]}")
    if name in (known := names()):
        return getattr(package, name)
    lower = {other.lower(): other for other in known}
    near = difflib.get_close_matches(name.lower().replace("_", ""), lower, n=1)
    hint = f"; the nearest is {lower[near[0]]}" if near else ""
    raise ValueError(
        f"{SETTING}: Albumentations {package.__version__} has no transform {name}{hint}"
    )


def _words(error: Exception) -> str:
    """What is wrong with which argument, without pydantic's addresses."""
    cause = error.__cause__
    if not isinstance(cause, ValidationError):
        return " ".join(str(error).split())
    found = []
    for mistake in cause.errors():
        message = mistake["msg"].removeprefix("Value error, ").replace("Input should", "should")
        place = ".".join(part for part in map(str, mistake["loc"]) if part.isidentifier())
        given = "" if mistake["type"] in ("missing", "value_error") else f" {mistake['input']!r}"
        found.append(f"{place}{given}: {message}" if place else message)
    return "; ".join(dict.fromkeys(found))
