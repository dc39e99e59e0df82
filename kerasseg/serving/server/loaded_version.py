"""A version of a SavedModel in memory: its signatures, its warm-up, and what its graph refuses."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kerasseg.serving.protocol import WARM_UP_FILE, from_proto, serving_apis
from kerasseg.serving.server.limits import (
    Limits,
    Reason,
    Refusal,
    Spec,
    bad_input,
    check_inputs,
    check_volume_bytes,
    inflate_volume,
    without_folders,
)

_MOST_WARM_UPS = 1000
"""TensorFlow Serving replays that many, too."""


class LoadedVersion:
    """A version of a SavedModel, loaded and warmed up.

    Raises what TensorFlow raises for a damaged one, and `Refusal` for a warm-up request that it
    does not answer.
    """

    def __init__(self, name: str, version: int, folder: Path, limits: Limits) -> None:
        self.name, self.version = name, version
        self.limits = limits
        self._loaded = tf.saved_model.load(str(folder))
        self._functions = dict(self._loaded.signatures)
        self.inputs = {
            signature: {
                key: _spec(spec) for key, spec in function.structured_input_signature[1].items()
            }
            for signature, function in self._functions.items()
        }
        self.definitions = _definitions(folder)
        self._warm_up(folder / WARM_UP_FILE)

    def specs(self, signature: str) -> Mapping[str, Spec]:
        """Return the inputs that a signature takes; raise `Refusal` if there is no such one."""
        if signature not in self.inputs:
            raise bad_input(
                f"The model {self.name} has no signature {signature!r}: there are "
                f"{', '.join(sorted(self.inputs))}."
            )
        return self.inputs[signature]

    def check(self, signature: str, inputs: Mapping[str, np.ndarray]) -> None:
        """Raise `Refusal` if the signature does not take the inputs, or they are too large."""
        check_inputs(inputs, self.specs(signature))
        if signature == "segment_bytes":
            check_volume_bytes(inputs, self.limits)

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs of checked inputs.

        Raises `Refusal` with the graph's own sentence where the graph refuses or fails.
        """
        if signature == "segment_bytes":
            inputs = inflate_volume(inputs)
        tensors = {
            # tf.constant makes no string scalar of an array of objects.
            name: tf.constant(value.item() if value.dtype == object and not value.ndim else value)
            for name, value in inputs.items()
        }
        try:
            outputs = self._functions[signature](**tensors)
        except tf.errors.ResourceExhaustedError:
            raise Refusal(
                Reason.TOO_LARGE, "Memory ran out on the server: send a smaller volume."
            ) from None
        except (tf.errors.InvalidArgumentError, tf.errors.OutOfRangeError) as error:
            raise bad_input(_graph_error(error.message)) from None
        except tf.errors.OpError as error:
            raise Refusal(Reason.FAILED, _graph_error(error.message)) from None
        return {
            name: np.asarray(value.numpy(), object if value.dtype == tf.string else None)
            for name, value in outputs.items()
        }

    def _warm_up(self, path: Path) -> None:
        if not path.is_file():
            return
        log = serving_apis().prediction_log_pb2.PredictionLog
        for record in tf.data.TFRecordDataset(str(path)).take(_MOST_WARM_UPS):
            request = log.FromString(record.numpy()).predict_log.request
            inputs = {name: from_proto(value) for name, value in request.inputs.items()}
            signature = request.model_spec.signature_name or "serving_default"
            self.check(signature, inputs)
            self.run(signature, inputs)


def _spec(spec: Any) -> Spec:
    dtype = "string" if spec.dtype == tf.string else spec.dtype.name
    shape = None if spec.shape.rank is None else tuple(spec.shape.as_list())
    return Spec(dtype, shape)


def _definitions(folder: Path) -> dict[str, Any]:
    """Return the `SignatureDef` of each signature, as GetModelMetadata answers them."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    saved = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    served = [graph for graph in saved.meta_graphs if "serve" in graph.meta_info_def.tags]
    return {
        name: type(definition).FromString(definition.SerializeToString())
        for name, definition in (served or saved.meta_graphs)[0].signature_def.items()
        if not name.startswith("__")
    }


def _graph_error(message: str) -> str:
    """Return the line of TensorFlow's message that says what was wrong."""
    lines = [line.strip() for line in message.splitlines()]
    for line in lines:
        _, assertion, rest = line.partition("assertion failed: [")
        if assertion:
            return _up_to_closing_bracket(rest)
    noise = ("Graph execution error", "Detected at", "<stack", "[[")
    told = [line for line in lines if line and not line.startswith(noise)]
    return without_folders(told[0]) if told else "The graph failed without a reason."


def _up_to_closing_bracket(text: str) -> str:
    """Return `the shape is [2 3], not …` of `the shape is [2 3], not …] [and more]`."""
    depth, end = 1, len(text)
    for index, letter in enumerate(text):
        depth += (letter == "[") - (letter == "]")
        if not depth:
            end = index
            break
    return re.sub(r"\\(['\"\\])", r"\1", text[:end])  # TensorFlow escapes quotes
