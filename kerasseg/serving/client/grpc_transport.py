"""Requests over gRPC."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kerasseg.serving.apis import serving_apis
from kerasseg.serving.client.connection import Connection, read_pem
from kerasseg.serving.client.server_error import ServerError
from kerasseg.serving.tensors import from_proto, to_proto

_OPTIONS = (
    # A volume is larger than the 4 MiB that gRPC allows by itself.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A server that was started again is found at once.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.use_local_subchannel_pool", 1),
)
_BUSY = "Concurrent RPC limit"
"""What gRPC itself says if a server has as many requests as it takes."""
_NOT_GRPC = "Failed parsing HTTP/2"
"""What it says of a server of HTTP/1."""


class GrpcTransport:
    """TensorFlow Serving's PredictionService."""

    name = "gRPC"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._apis = serving_apis()
        grpc = self._apis.grpc
        if connection.tls:
            credentials = grpc.ssl_channel_credentials(
                root_certificates=read_pem(connection.authority, "--authority"),
                private_key=read_pem(connection.key, "--key"),
                certificate_chain=read_pem(connection.certificate, "--certificate"),
            )
            self._channel = grpc.secure_channel(connection.address, credentials, _OPTIONS)
        else:
            self._channel = grpc.insecure_channel(connection.address, _OPTIONS)
        self._stub = self._apis.prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def predict(
        self, model: str, version: int | None, signature: str, inputs: Mapping[str, Any]
    ) -> tuple[dict[str, Any], int]:
        """Outputs, strings as bytes, and the bytes of the request.

        Raises `ServerError`.
        """
        request = self._apis.predict_pb2.PredictRequest()
        request.model_spec.name = model
        request.model_spec.signature_name = signature
        if version is not None:
            request.model_spec.version.value = version
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(to_proto(value))
        size = request.ByteSize()
        try:
            response = self._stub.Predict(request, timeout=self._connection.deadline)
        except self._apis.grpc.RpcError as error:
            raise self._error(error) from None
        return {name: _value(from_proto(v)) for name, v in response.outputs.items()}, size

    def close(self) -> None:
        """Hang up."""
        self._channel.close()

    def _error(self, error: Any) -> ServerError:
        codes = self._apis.grpc.StatusCode
        code, told = error.code(), (error.details() or "it does not say why").strip()
        where = self._connection.address
        if code == codes.UNIMPLEMENTED or _NOT_GRPC in told:
            return ServerError(
                f"{where} is no gRPC server of TensorFlow Serving ({told}): is it the port of "
                "REST? Then use --rest."
            )
        if code == codes.UNAVAILABLE or (code == codes.RESOURCE_EXHAUSTED and _BUSY in told):
            return ServerError(
                f"{where} does not answer ({told}): start it, wait, or look at --server.",
                gone=True,
            )
        if code == codes.DEADLINE_EXCEEDED:
            return ServerError(
                f"{where} did not answer within {self._connection.deadline:g} s: give it longer "
                "with --deadline."
            )
        return ServerError(f"{where} refuses ({code.name}): {told}")


def _value(array: np.ndarray) -> Any:
    return array.item() if array.dtype == object and array.ndim == 0 else array
