"""`LoadedVersion`: one version of a SavedModel in memory."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kerasseg.serving.apis import serving_apis
from kerasseg.serving.server.check_inputs import check_inputs
from kerasseg.serving.server.limits import Limits
from kerasseg.serving.server.refusal import Reason, Refusal
from kerasseg.serving.server.signature import Spec
from kerasseg.serving.server.unpack_volume import check_claim, unpack_volume
from kerasseg.serving.tensors import from_proto

_ASSERTION = "assertion failed: ["
WARM_UP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
_MOST_WARM_UPS = 1000
"""As many as TensorFlow Serving replays."""


class LoadedVersion:
    """A SavedModel, loaded and warmed up.

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
        """Input name -> what it must be. Raises `Refusal` for a signature that is not there."""
        if signature not in self.inputs:
            raise Refusal(
                Reason.BAD_INPUT,
                f"The model {self.name} has no signature {signature!r}: there are "
                f"{', '.join(sorted(self.inputs))}.",
            )
        return self.inputs[signature]

    def check(self, signature: str, inputs: Mapping[str, np.ndarray]) -> None:
        """Raises `Refusal` for inputs that the signature does not take."""
        check_inputs(inputs, self.specs(signature))
        if self._takes_bytes(signature):
            check_claim(inputs, self.limits, self._channels)

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs of checked inputs. Raises `Refusal` where the graph refuses or fails."""
        if self._takes_bytes(signature):
            inputs = unpack_volume(inputs)
        tensors = {name: tf.constant(_for_tensorflow(value)) for name, value in inputs.items()}
        try:
            outputs = self._functions[signature](**tensors)
        except tf.errors.ResourceExhaustedError:
            raise Refusal(
                Reason.TOO_LARGE, "Memory ran out on the server: send a smaller volume."
            ) from None
        except (tf.errors.InvalidArgumentError, tf.errors.OutOfRangeError) as error:
            raise Refusal(Reason.BAD_INPUT, _sentence(error.message)) from None
        except tf.errors.OpError as error:
            raise Refusal(Reason.FAILED, _sentence(error.message)) from None
        return {name: _for_numpy(value) for name, value in outputs.items()}

    def _takes_bytes(self, signature: str) -> bool:
        return signature == "segment_bytes"

    @property
    def _channels(self) -> int | None:
        volume = self.inputs.get("segment", {}).get("volume")
        return volume.shape[-1] if volume is not None and volume.shape else None

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


def _for_tensorflow(value: np.ndarray) -> Any:
    return value.item() if value.dtype == object and value.ndim == 0 else value


def _for_numpy(value: Any) -> np.ndarray:
    return np.asarray(value.numpy(), object if value.dtype == tf.string else None)


def _definitions(folder: Path) -> dict[str, Any]:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    saved = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    served = [graph for graph in saved.meta_graphs if "serve" in graph.meta_info_def.tags]
    return {
        name: type(definition).FromString(definition.SerializeToString())
        for name, definition in (served or saved.meta_graphs)[0].signature_def.items()
        if not name.startswith("__")
    }


def _first_in_brackets(words: str) -> str:
    """Of "the shape is [2 3], not …] [and more]" what stands before the bracket that closes it."""
    depth, end = 1, len(words)
    for index, letter in enumerate(words):
        depth += (letter == "[") - (letter == "]")
        if not depth:
            end = index
            break
    return re.sub(r"\\(['\"\\])", r"\1", words[:end])  # TensorFlow escapes them


def _sentence(message: str) -> str:
    """The line of TensorFlow's message that says what was wrong."""
    lines = [line.strip() for line in message.splitlines()]
    for line in lines:
        if _ASSERTION in line:
            return _first_in_brackets(line.split(_ASSERTION, 1)[1])
    told = [
        line
        for line in lines
        if line and not line.startswith(("Graph execution error", "Detected at", "<stack", "[["))
    ]
    return told[0] if told else "The graph failed without a reason."
