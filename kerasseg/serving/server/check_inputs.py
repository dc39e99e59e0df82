"""A request's tensors against a signature, before the graph sees them."""

from collections.abc import Mapping

import numpy as np

from kerasseg.serving.server.limits import MIB
from kerasseg.serving.server.refusal import Reason, Refusal
from kerasseg.serving.server.signature import Spec


def check_inputs(inputs: Mapping[str, np.ndarray], specs: Mapping[str, Spec]) -> None:
    """Names, types and shapes are the signature's, nothing is empty, every number is finite.

    Raises `Refusal` that says what was expected and what was found.
    """
    missing, unknown = set(specs) - set(inputs), set(inputs) - set(specs)
    if missing or unknown:
        raise _bad(
            f"The inputs are {_words(inputs)}, but the signature takes {_words(specs)}: "
            + (f"add {_words(missing)}." if missing else f"leave out {_words(unknown)}.")
        )
    for name, spec in specs.items():
        value = inputs[name]
        found = "string" if value.dtype == object else value.dtype.name
        if found != spec.dtype:
            raise _bad(f"{name} is {found}, expected {spec.dtype}.")
        if not spec.takes(value.shape):
            raise _bad(f"{name} has the shape {value.shape}, expected {spec.shape_in_words}.")
        if 0 in value.shape:
            raise _bad(f"{name} is empty: its shape is {value.shape}.")
        if value.dtype.kind == "f":
            check_finite(name, value)
        if name == "spacing" and (value < 0).any():
            raise _bad(f"spacing is {value.tolist()} mm, expected sizes above 0, or 0 if unknown.")


def check_finite(name: str, values: np.ndarray) -> None:
    """Raises `Refusal` for NaN and infinity."""
    if not (np.isfinite(values.min()) and np.isfinite(values.max())):
        raise _bad(f"{name} holds values that are no finite numbers (NaN or infinity).")


def too_large(name: str, count: int, most: int) -> Refusal:
    """The refusal of a claim."""
    return Refusal(
        Reason.TOO_LARGE,
        f"{name} claims {count / MIB:,.0f} MiB; at most {most / MIB:,.0f} MiB are taken.",
    )


def _words(names: Mapping | set) -> str:
    return ", ".join(sorted(names)) or "none"


def _bad(sentence: str) -> Refusal:
    return Refusal(Reason.BAD_INPUT, sentence)
