"""`PredictionService` and `ModelService` of TensorFlow Serving over gRPC.

A request of either protocol -> its outputs.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasseg.serving.protocol import from_proto, serving_apis, to_proto
from kerasseg.serving.server.checks import Reason, Refusal
from kerasseg.serving.server.metrics import Metrics
from kerasseg.serving.server.models import Models, wait

DEFAULT_SIGNATURE = "serving_default"


@dataclass(frozen=True)
class Request:
    """version: None for the one that answers. until: `time.monotonic` by when it is of use."""

    model: str
    version: int | None
    signature: str
    until: float


def answer(
    models: Models,
    request: Request,
    inputs: Callable[[Any], Mapping[str, np.ndarray]],
    queued: Callable[[Future], Any] = lambda future: None,
) -> tuple[dict[str, np.ndarray], int]:
    """The outputs, and the version that made them.

    inputs: makes the tensors, given the loaded version
    queued: is told the task, so that it can be cancelled

    Raises `Refusal`.
    """
    served = models.model(request.model)
    loaded = served.get(request.version)
    loaded.specs(request.signature)
    tensors = inputs(loaded)
    loaded.check(request.signature, tensors)
    task = served.work.put(lambda: loaded.run(request.signature, tensors))
    queued(task)
    return wait(task, request.until - time.monotonic()), loaded.version


def grpc_server(models: Models, metrics: Metrics) -> Any:
    """A `grpc.Server` with both services, without a port yet."""
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
    """The methods have the names of the protocol."""

    def __init__(self, models: Models, metrics: Metrics) -> None:
        self._models, self._metrics = models, metrics
        self._apis = serving_apis()

    def Predict(self, message: Any, context: Any) -> Any:
        """Inputs of a signature -> its outputs."""

        def work() -> Any:
            with self._metrics.request("grpc") as labels:
                request = self._request(message.model_spec, context)
                labels.update(model=request.model, signature=request.signature)
                outputs, version = answer(
                    self._models,
                    request,
                    lambda loaded: self._inputs(message),
                    lambda task: _cancel_with(context, task),
                )
                return self._response(message, request, outputs, version)

        return self._answered(context, work)

    def GetModelMetadata(self, message: Any, context: Any) -> Any:
        """The signatures of a model."""

        def work() -> Any:
            if list(message.metadata_field) != ["signature_def"]:
                raise Refusal(
                    Reason.BAD_INPUT,
                    f"metadata_field is {list(message.metadata_field)}, expected signature_def.",
                )
            request = self._request(message.model_spec, context)
            loaded = self._models.model(request.model).get(request.version)
            return metadata_response(request.model, loaded)

        return self._answered(context, work)

    def GetModelStatus(self, message: Any, context: Any) -> Any:
        """The states of a model's versions."""
        return self._answered(
            context,
            lambda: status_response(
                self._models, message.model_spec.name, _version(message.model_spec)
            ),
        )

    def Classify(self, message: Any, context: Any) -> Any:
        """Not of this server."""
        return self._unimplemented(context)

    Regress = MultiInference = HandleReloadConfigRequest = Classify

    def _unimplemented(self, context: Any) -> None:
        context.abort(
            self._apis.grpc.StatusCode.UNIMPLEMENTED,
            "This server only answers Predict, GetModelMetadata and GetModelStatus.",
        )

    def _answered(self, context: Any, work: Callable[[], Any]) -> Any:
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

    def _request(self, spec: Any, context: Any) -> Request:
        seconds = self._models.limits.seconds
        left = context.time_remaining()
        if left is not None:
            seconds = min(seconds, left)
        signature = spec.signature_name or DEFAULT_SIGNATURE
        return Request(spec.name, _version(spec), signature, time.monotonic() + seconds)

    def _inputs(self, message: Any) -> Mapping[str, np.ndarray]:
        result = {}
        for name, value in message.inputs.items():
            try:
                result[name] = from_proto(value, self._models.limits.volume_bytes)
            except OverflowError as error:
                raise Refusal(Reason.TOO_LARGE, f"{name} {error}.") from None
            except ValueError as error:
                raise Refusal(Reason.BAD_INPUT, f"{name} {error}.") from None
        return result

    def _response(
        self, message: Any, request: Request, outputs: dict[str, np.ndarray], version: int
    ) -> Any:
        wanted = list(message.output_filter)
        unknown = [name for name in wanted if name not in outputs]
        if unknown:
            raise Refusal(
                Reason.BAD_INPUT,
                f"output_filter names {', '.join(unknown)}: there are {', '.join(outputs)}.",
            )
        response = self._apis.predict_pb2.PredictResponse()
        response.model_spec.name = request.model
        response.model_spec.version.value = version
        response.model_spec.signature_name = request.signature
        for name in wanted or outputs:
            response.outputs[name].CopyFrom(to_proto(outputs[name]))
        return response


def metadata_response(name: str, loaded: Any) -> Any:
    """GetModelMetadataResponse of a loaded version."""
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
    """GetModelStatusResponse. Raises `Refusal` for a model or version that is not there."""
    messages = serving_apis().get_model_status_pb2
    statuses = models.model(name).statuses
    if version is not None and version not in statuses:
        raise Refusal(
            Reason.NOT_FOUND,
            f"The model {name} has no version {version}: there is "
            f"{', '.join(map(str, sorted(statuses))) or 'none'}.",
        )
    response = messages.GetModelStatusResponse()
    for number, status in sorted(statuses.copy().items(), reverse=True):
        if version in (None, number):
            entry = response.model_version_status.add(version=number)
            entry.state = messages.ModelVersionStatus.State.Value(status.state)
            entry.status.SetInParent()  # OK is said, too
            if status.error:
                entry.status.error_code = 2  # UNKNOWN of tensorflow/core/protobuf/error_codes.proto
                entry.status.error_message = status.error
    return response


def _version(spec: Any) -> int | None:
    if spec.version_label:
        raise Refusal(
            Reason.NOT_FOUND, "This server knows no version labels: name a number, or nothing."
        )
    return spec.version.value if spec.HasField("version") else None


def _cancel_with(context: Any, task: Future) -> None:
    """Who hangs up waits no longer."""
    if not context.add_callback(task.cancel):
        task.cancel()
