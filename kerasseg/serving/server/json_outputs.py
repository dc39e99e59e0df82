"""Tensors -> the JSON of TensorFlow Serving's REST API."""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from kerasseg.serving.server.refusal import Reason, Refusal


def columns(outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """For a request with `inputs`: every tensor by its name, or the only one alone."""
    values = {name: _values(name, array) for name, array in outputs.items()}
    return {"outputs": next(iter(values.values())) if len(values) == 1 else values}


def rows(outputs: Mapping[str, np.ndarray], count: int) -> dict[str, Any]:
    """For a request with `instances`: a list of as many rows.

    Raises `Refusal` if an output has another number of rows.
    """
    for name, array in outputs.items():
        if not array.ndim or array.shape[0] != count:
            raise Refusal(
                Reason.BAD_INPUT,
                f"{name} has the shape {array.shape}, no {count} row(s): ask with inputs, "
                "not with instances.",
            )
    values = {name: _values(name, array) for name, array in outputs.items()}
    if len(values) == 1:
        return {"predictions": next(iter(values.values()))}
    return {"predictions": [{name: values[name][row] for name in values} for row in range(count)]}


def _values(name: str, array: np.ndarray) -> Any:
    if array.dtype != object:
        return array.tolist()
    return _strings(array.tolist(), binary=name.endswith("_bytes"))


def _strings(value: Any, *, binary: bool) -> Any:
    if isinstance(value, list):
        return [_strings(part, binary=binary) for part in value]
    if binary:
        return {"b64": base64.b64encode(value).decode()}
    return value.decode("utf-8", "replace")
