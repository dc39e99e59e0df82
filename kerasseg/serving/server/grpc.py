"""TensorFlow Serving's `PredictionService` and `ModelService` over gRPC.

The answers about a model's signatures and versions are messages of this protocol in REST, too.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from kerasseg.serving.protocol import from_proto, serving_apis, to_proto
from kerasseg.serving.server.limits import Reason, Refusal, bad_input
from kerasseg.serving.server.metrics import Metrics
from kerasseg.serving.server.models import Models

DEFAULT_SIGNATURE = "serving_default"


def grpc_server(models: Models, metrics: Metrics) -> Any:
    """Return a `grpc.Server` with both services, without a port yet."""
    apis, limits = serving_apis(), models.limits
    server = apis.grpc.server(
        ThreadPoolExecutor(limits.at_once, thread_name_prefix="grpc"),
        options=[
            ("grpc.max_receive_message_length", limits.request_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ],
        maximum_concurrent_rpcs=limits.at_once,
    )
    services = _Services(models, metrics)
    apis.prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(services, server)
    apis.model_service_pb2_grpc.add_ModelServiceServicer_to_server(services, server)
    return server


class _Services:
    """The methods that TensorFlow Serving's protocol names."""

    def __init__(self, models: Models, metrics: Metrics) -> None:
        self._models, self._metrics = models, metrics
        self._apis = serving_apis()

    def Predict(self, message: Any, context: Any) -> Any:
        """Answer the outputs of a signature."""
        return self._answer(context, lambda: self._predict(message, context))

    def GetModelMetadata(self, message: Any, context: Any) -> Any:
        """Answer the signatures of a model."""

        def work() -> Any:
            if list(message.metadata_field) != ["signature_def"]:
                raise bad_input(
                    f"metadata_field is {list(message.metadata_field)}, expected signature_def."
                )
            spec = message.model_spec
            return metadata_response(self._models, spec.name, _version(spec))

        return self._answer(context, work)

    def GetModelStatus(self, message: Any, context: Any) -> Any:
        """Answer the states of a model's versions."""
        spec = message.model_spec
        return self._answer(
            context, lambda: status_response(self._models, spec.name, _version(spec))
        )

    def Classify(self, message: Any, context: Any) -> Any:
        """Refuse a method that this server does not have."""
        context.abort(
            self._apis.grpc.StatusCode.UNIMPLEMENTED,
            "This server only answers Predict, GetModelMetadata and GetModelStatus.",
        )

    Regress = MultiInference = HandleReloadConfigRequest = Classify

    def _answer(self, context: Any, work: Callable[[], Any]) -> Any:
        codes = self._apis.grpc.StatusCode
        try:
            return work()
        except Refusal as refusal:
            code, sentence = codes[refusal.reason.grpc_code], refusal.sentence
        except MemoryError:
            code, sentence = codes.RESOURCE_EXHAUSTED, "Memory ran out on the server."
        except Exception as error:  # whatever it is, the server goes on
            code, sentence = codes.INTERNAL, f"{type(error).__name__}: {error}"
        return context.abort(code, sentence)

    def _predict(self, message: Any, context: Any) -> Any:
        limits, left = self._models.limits, context.time_remaining()
        until = time.monotonic() + (limits.seconds if left is None else min(limits.seconds, left))
        spec = message.model_spec
        signature = spec.signature_name or DEFAULT_SIGNATURE

        def cancel_if_gone(task: Future) -> None:
            # A request whose sender hangs up leaves the queue.
            if not context.add_callback(task.cancel):
                task.cancel()

        with self._metrics.request("grpc") as labels:
            labels.update(model=spec.name, signature=signature)
            served = self._models.model(spec.name)
            loaded = served.get(_version(spec))
            loaded.specs(signature)  # refused before the tensors are read
            inputs = _read_inputs(message.inputs, limits.volume_bytes)
            outputs = served.predict(
                loaded, signature, inputs, until - time.monotonic(), cancel_if_gone
            )
            names = list(message.output_filter) or list(outputs)
            unknown = [name for name in names if name not in outputs]
            if unknown:
                raise bad_input(
                    f"output_filter names {', '.join(unknown)}: there are {', '.join(outputs)}."
                )
            response = self._apis.predict_pb2.PredictResponse()
            response.model_spec.name = spec.name
            response.model_spec.version.value = loaded.version
            response.model_spec.signature_name = signature
            for name in names:
                response.outputs[name].CopyFrom(to_proto(outputs[name]))
            return response


def _read_inputs(messages: Mapping[str, Any], most_bytes: int) -> dict[str, np.ndarray]:
    inputs = {}
    for name, message in messages.items():
        try:
            inputs[name] = from_proto(message, most_bytes)
        except OverflowError as error:
            raise Refusal(Reason.TOO_LARGE, f"{name} {error}.") from None
        except ValueError as error:
            raise bad_input(f"{name} {error}.") from None
    return inputs


def _version(spec: Any) -> int | None:
    if spec.version_label:
        raise Refusal(
            Reason.NOT_FOUND, "This server knows no version labels: name a number, or nothing."
        )
    return spec.version.value if spec.HasField("version") else None


def metadata_response(models: Models, name: str, version: int | None) -> Any:
    """Return a GetModelMetadataResponse; raise `Refusal` if there is no such model or version."""
    loaded = models.model(name).get(version)
    messages = serving_apis().get_model_metadata_pb2
    response = messages.GetModelMetadataResponse()
    response.model_spec.name = name
    response.model_spec.version.value = loaded.version
    signatures = messages.SignatureDefMap()
    for signature, definition in loaded.definitions.items():
        signatures.signature_def[signature].CopyFrom(definition)
    response.metadata["signature_def"].Pack(signatures)
    return response


def status_response(models: Models, name: str, version: int | None) -> Any:
    """Return a GetModelStatusResponse; raise `Refusal` if there is no such model or version."""
    messages = serving_apis().get_model_status_pb2
    statuses = models.model(name).statuses.copy()  # another thread changes it
    if version is not None and version not in statuses:
        raise Refusal(
            Reason.NOT_FOUND,
            f"The model {name} has no version {version}: there is "
            f"{', '.join(map(str, sorted(statuses))) or 'none'}.",
        )
    response = messages.GetModelStatusResponse()
    for number, status in sorted(statuses.items(), reverse=True):
        if version in (None, number):
            entry = response.model_version_status.add(version=number)
            entry.state = messages.ModelVersionStatus.State.Value(status.state)
            entry.status.SetInParent()  # so that OK is written, too
            if status.error:
                entry.status.error_code = 2  # UNKNOWN of tensorflow/core/protobuf/error_codes.proto
                entry.status.error_message = status.error
    return response
