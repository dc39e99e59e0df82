"""The JSON of TensorFlow Serving's REST API -> tensors of a signature."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic_core import from_json

from kerasseg.serving.server.limits import Limits
from kerasseg.serving.server.refusal import Reason, Refusal
from kerasseg.serving.server.signature import Spec

_KINDS = {"f": "iuf", "i": "iu", "u": "iu", "b": "b"}
"""Kind of a dtype -> kinds of JSON values that it takes."""


def parse_body(body: bytes, limits: Limits) -> dict[str, Any]:
    """The request's object. Raises `Refusal` for what is no JSON object, or would not fit."""
    values, lists = body.count(b","), body.count(b"[") + body.count(b"{")
    if values > limits.json_values or lists > limits.json_lists:
        raise Refusal(
            Reason.TOO_LARGE,
            f"The JSON holds {values + 1} values in {lists} lists; at most {limits.json_values} in "
            f"{limits.json_lists} are taken: use the signature segment_bytes, or gRPC.",
        )
    try:
        parsed = from_json(body)
    except ValueError as error:
        raise _bad(f"The body is no JSON: {error}.") from None
    if not isinstance(parsed, dict):
        raise _bad("The body is no JSON object: expected signature_name and inputs or instances.")
    unknown = set(parsed) - {"signature_name", "inputs", "instances"}
    if unknown:
        raise _bad(f"The body has {', '.join(sorted(unknown))}, which nothing reads: leave it out.")
    if ("inputs" in parsed) == ("instances" in parsed):
        raise _bad("The body needs either inputs (columns) or instances (rows).")
    if not isinstance(parsed.get("signature_name", ""), str):
        raise _bad("signature_name is no string.")
    return parsed


def json_inputs(parsed: dict[str, Any], specs: Mapping[str, Spec]) -> dict[str, np.ndarray]:
    """The tensors, of the signature's types.

    `inputs`:    every tensor by its name, or the only one alone
    `instances`: a list of rows, each the only tensor or all by their names; rows are stacked

    Raises `Refusal` for values of another type, rows of different shapes, and unknown names.
    """
    if "inputs" in parsed:
        columns = _by_name(parsed["inputs"], specs)
    else:
        columns = _columns(parsed["instances"], specs)
    unknown = set(columns) - set(specs)
    if unknown:
        raise _bad(f"There is no input {', '.join(sorted(unknown))}: {_takes(specs)}.")
    return {name: _tensor(name, columns[name], specs[name]) for name in list(columns)}


def _by_name(value: Any, specs: Mapping[str, Spec]) -> dict[str, Any]:
    named = isinstance(value, dict) and not _is_binary(value)
    if named:
        return value
    if len(specs) != 1:
        raise _bad(f"Values without a name: {_takes(specs)}.")
    return {next(iter(specs)): value}


def _columns(rows: Any, specs: Mapping[str, Spec]) -> dict[str, Any]:
    if not isinstance(rows, list) or not rows:
        raise _bad("instances is no list, or empty.")
    named = [_by_name(row, specs) for row in rows]
    if any(set(row) != set(named[0]) for row in named):
        raise _bad("instances do not all have the same inputs.")
    return {name: [row[name] for row in named] for name in named[0]}


def _tensor(name: str, value: Any, spec: Spec) -> np.ndarray:
    if spec.dtype == "string":
        return _strings(name, value)
    try:
        array = np.array(value)
    except (ValueError, OverflowError):
        raise _bad(f"{name} is no regular array: rows have different lengths.") from None
    wanted = np.dtype(spec.dtype)
    if array.dtype.kind not in _KINDS[wanted.kind] and array.size:
        raise _bad(f"{name} holds values that are no {spec.dtype}.")
    if wanted.kind in "iu" and array.size:
        info = np.iinfo(wanted)
        if array.min() < info.min or array.max() > info.max:
            raise _bad(f"{name} holds values that {spec.dtype} does not.")
    return array.astype(wanted)


def _strings(name: str, value: Any) -> np.ndarray:
    if not isinstance(value, list):
        return np.asarray(_bytes(name, value), object)
    parts = [_strings(name, part) for part in value]
    if len({part.shape for part in parts}) > 1:
        raise _bad(f"{name} is no regular array: rows have different lengths.")
    result = np.empty((len(parts), *(parts[0].shape if parts else ())), object)
    for index, part in enumerate(parts):
        result[index] = part.item() if part.ndim == 0 else part
    return result


def _bytes(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if _is_binary(value):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, ValueError, TypeError):
            raise _bad(f"{name}: what stands under b64 is no base64.") from None
    raise _bad(f'{name} is no string and no {{"b64": "…"}}.')


def _is_binary(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"b64"}


def _takes(specs: Mapping[str, Spec]) -> str:
    return f"the signature takes {', '.join(sorted(specs))}"


def _bad(sentence: str) -> Refusal:
    return Refusal(Reason.BAD_INPUT, sentence)
