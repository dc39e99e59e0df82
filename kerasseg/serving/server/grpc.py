"""TensorFlow Serving's `PredictionService` and `ModelService` over gRPC.

The answers about a model's signatures and versions are messages of this protocol in REST, too.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np

from kerasseg.serving import protocol
from kerasseg.serving.server.limits import (
    MIB,
    Limits,
    Reason,
    Refusal,
    Spec,
    bad_input,
    check_names,
)
from kerasseg.serving.server.models import Models
from kerasseg.serving.server.requests import Held, Metrics, Requests

DEFAULT_SIGNATURE = "serving_default"
_LONGEST_SENTENCE = 1000
"""Characters of a refusal; gRPC sends it among the headers, of which there may be 8 KiB."""
_LOG = logging.getLogger(__name__)


def grpc_server(models: Models, metrics: Metrics, requests: Requests) -> Any:
    """Return a `grpc.aio.Server` with both services, without a port yet.

    It belongs to the running event loop. For the server every method is a stream of messages, which
    looks the same on the wire if there is one: so a message is only read when there is room for it,
    and a client that never sends it holds no thread.
    """
    apis, limits = protocol.serving_apis(), models.limits
    milliseconds = int(1000 * limits.silent_seconds)
    server = apis.grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", limits.request_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
            # A compressed message would be unfolded before its size is known.
            ("grpc.compression_enabled_algorithms_bitset", 1),
            ("grpc.max_concurrent_streams", 100),
            ("grpc.server_handshake_timeout_ms", milliseconds),
            ("grpc.max_connection_idle_ms", 10 * milliseconds),
        ]
    )
    services = _Services(models, metrics, requests)
    handlers = {
        "tensorflow.serving.PredictionService": {
            "Predict": services.predict,
            "GetModelMetadata": services.metadata,
        },
        "tensorflow.serving.ModelService": {
            "GetModelStatus": services.status,
        },
    }
    for service, methods in handlers.items():
        behaviours = {
            name: apis.grpc.stream_stream_rpc_method_handler(method)
            for name, method in methods.items()
        }
        server.add_generic_rpc_handlers(
            (apis.grpc.method_handlers_generic_handler(service, behaviours),)
        )
    return server


class _Services:
    """The methods that this server has; gRPC itself refuses the protocol's others."""

    def __init__(self, models: Models, metrics: Metrics, requests: Requests) -> None:
        self._models, self._metrics, self._requests = models, metrics, requests
        # Requests for a status are small, and are answered whatever the others wait for.
        self._small = Requests(models.limits)
        self._apis = protocol.serving_apis()

    async def predict(self, messages: Any, context: Any) -> None:
        """Answer the outputs of a signature."""
        limits, left = self._models.limits, context.time_remaining()
        until = time.monotonic() + (limits.seconds if left is None else min(limits.seconds, left))

        async def work(data: bytes, held: Held) -> bytes:
            context.add_done_callback(lambda _: held.hung_up())
            parts = [data]  # so that the work can let go of it
            del data
            return await self._requests.compute(held, lambda: self._predict(parts, held, until))

        await self._answer(context, self._requests, work, until)

    async def metadata(self, messages: Any, context: Any) -> None:
        """Answer the signatures of a model."""

        async def work(data: bytes, held: Held) -> bytes:
            message = self._apis.get_model_metadata_pb2.GetModelMetadataRequest.FromString(data)
            if list(message.metadata_field) != ["signature_def"]:
                raise bad_input("metadata_field is something else than signature_def alone.")
            spec = message.model_spec
            answer = metadata_response(self._models, spec.name, _version(spec))
            return bytes(answer.SerializeToString())

        await self._answer(context, self._small, work)

    async def status(self, messages: Any, context: Any) -> None:
        """Answer the states of a model's versions."""

        async def work(data: bytes, held: Held) -> bytes:
            message = self._apis.get_model_status_pb2.GetModelStatusRequest.FromString(data)
            spec = message.model_spec
            answer = status_response(self._models, spec.name, _version(spec))
            return bytes(answer.SerializeToString())

        await self._answer(context, self._small, work)

    async def _answer(
        self,
        context: Any,
        requests: Requests,
        work: Callable[[bytes, Held], Awaitable[bytes]],
        until: float | None = None,
    ) -> None:
        """Read the only message of a call, and write what `work` makes of it."""
        codes = self._apis.grpc.StatusCode
        try:
            with requests.request() as held:
                # How large the message is, is known when all of it is there.
                await requests.resize(held, self._models.limits.request_bytes)
                patience = None if until is None else until - time.monotonic()
                data = await requests.wait_for_client(held, context.read(), patience)
                if not isinstance(data, bytes):
                    raise bad_input("The call ended without a message.")
                await requests.resize(held, len(data))
                parts = [data]
                del data
                answer = await work(parts.pop(), held)
                held.size = len(answer)
                await requests.wait_for_client(held, context.write(answer), patience)
                return
        except Refusal as refusal:
            code, sentence = codes[refusal.reason.grpc_code], refusal.sentence
        except MemoryError:
            code, sentence = codes.RESOURCE_EXHAUSTED, "Memory ran out on the server."
        except Exception as error:  # whatever it is, the server goes on
            if type(error).__name__ == "DecodeError":
                code, sentence = codes.INVALID_ARGUMENT, "The message is not of this method."
            else:
                code, sentence = codes.INTERNAL, internal_error(error)
        await context.abort(code, sentence[:_LONGEST_SENTENCE])

    def _predict(self, parts: list[bytes], held: Held, until: float) -> bytes:
        with self._metrics.request("grpc") as labels:
            message = self._read(parts.pop())
            name, wanted = message.model_spec.name, list(message.output_filter)
            signature = message.model_spec.signature_name or DEFAULT_SIGNATURE
            labels.update(model=name, signature=signature)
            served = self._models.model(name)
            loaded = served.get(_version(message.model_spec))
            # Refused before the tensors are unfolded.
            inputs = _read_inputs(message.inputs, loaded.specs(signature), self._models.limits)
            del message
            outputs = served.predict(
                loaded, signature, inputs, until - time.monotonic(), held.queued
            )
            names = wanted or list(outputs)
            if not set(names) <= set(outputs):
                raise bad_input(f"output_filter names others than {', '.join(outputs)}.")
            response = self._apis.predict_pb2.PredictResponse()
            response.model_spec.name = name
            response.model_spec.version.value = loaded.version
            response.model_spec.signature_name = signature
            for each in names:
                response.outputs[each].CopyFrom(protocol.to_proto(outputs[each]))
            return bytes(response.SerializeToString())

    def _read(self, data: bytes) -> Any:
        try:
            return protocol.read_predict_request(data)
        except OverflowError as error:
            raise Refusal(Reason.TOO_LARGE, str(error)) from None
        except ValueError as error:
            raise bad_input(str(error)) from None


def internal_error(error: Exception) -> str:
    """Return what a client is told of a mistake of ours, and write all of it into the log."""
    _LOG.error("A request failed.", exc_info=error)
    return f"The server made a mistake ({type(error).__name__}); its log tells more."


def _read_inputs(
    messages: Mapping[str, Any], specs: Mapping[str, Spec], limits: Limits
) -> dict[str, np.ndarray]:
    """Return the arrays of a request's tensors, once all of them together are known to fit."""
    check_names(messages, specs)
    inputs, name = {}, ""
    try:
        total = 0
        for name in messages:
            total += protocol.claimed_bytes(messages[name])
        if total > limits.volume_bytes:
            raise Refusal(
                Reason.TOO_LARGE,
                f"The shapes of the inputs claim {total / MIB:,.0f} MiB; at most "
                f"{limits.volume_bytes / MIB:,.0f} MiB are taken.",
            )
        for name, message in messages.items():
            inputs[name] = protocol.from_proto(message, limits.volume_bytes)
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
    messages = protocol.serving_apis().get_model_metadata_pb2
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
    messages = protocol.serving_apis().get_model_status_pb2
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
