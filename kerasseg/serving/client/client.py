"""`Client`: a served model that takes raw scans."""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kerasseg import anatomy
from kerasseg.datasets.case import Case
from kerasseg.datasets.findings import check_case
from kerasseg.datasets.inputs.find_inputs import find_inputs
from kerasseg.errors import UserError
from kerasseg.prediction.array_case import array_case
from kerasseg.prediction.prediction import Prediction
from kerasseg.serving.client.connection import Connection, parse_server
from kerasseg.serving.client.grpc_transport import GrpcTransport
from kerasseg.serving.client.metadata import UNKNOWN, Metadata, read_metadata
from kerasseg.serving.client.pack_volume import PackedVolume, pack_volume
from kerasseg.serving.client.rest_transport import RestTransport
from kerasseg.serving.client.retry import retry
from kerasseg.serving.client.server_error import ServerError
from kerasseg.settings.data import DataSettings

DEFAULT_MODEL = "kerasseg"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Client:
    """A model on a TensorFlow Serving server: raw scans -> predictions on the scans' own grid.

    server:        HOST:PORT
    model:         its name there
    version:       a version, or None for the one that answers
    rest:          REST instead of gRPC
    probabilities: ask for them, too
    compression:   gzip, none, or auto: gzip unless the server is on this machine
    retries:       how often a server that is gone is asked again
    connection:    further options of `Connection`: tls, authority, certificate, key, deadline (s)
    say:           is told of a server that is gone

    Close it, or use it in `with`. Raises `UserError` for an address that is none and for a missing
    extra.
    """

    members = 1
    """Of several runs the server's answer does not say how they differ."""

    def __init__(
        self,
        server: str,
        model: str = DEFAULT_MODEL,
        *,
        version: int | None = None,
        rest: bool = False,
        probabilities: bool = False,
        compression: Literal["auto", "gzip", "none"] = "auto",
        retries: int = 3,
        say: Callable[[str], None] = _say,
        **connection: Any,
    ) -> None:
        host, port = parse_server(server)
        self.connection = Connection(host, port, **connection)
        self.model, self.version = model, version
        self.probabilities = probabilities
        self.sent: PackedVolume | None = None
        self.sent_bytes = 0
        self._compress = compression == "gzip" or (
            compression == "auto" and not self.connection.local
        )
        self._retries, self._say = retries, say
        self._transport = (RestTransport if rest else GrpcTransport)(self.connection)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    @cached_property
    def metadata(self) -> Metadata:
        """What the model says of itself; asked for once."""
        outputs = self.call("metadata", {"request": ""})
        text = outputs.get("json", outputs.get(""))
        return read_metadata(text if isinstance(text, bytes) else b"")

    @property
    def data(self) -> DataSettings:
        """How the model's own scans lay, with its modalities."""
        return self.metadata.data

    @property
    def target(self) -> str:
        """A key of `anatomy.TARGETS`."""
        return self.metadata.target

    @property
    def sent_in_words(self) -> str:
        """How the volumes travelled, and the bytes of all requests so far."""
        if self.sent is None:
            return "Nothing was sent."
        kind = f"{self.sent.dtype}, {self.sent.compression or 'not compressed'}"
        return f"Sent {self.sent_bytes / 1e6:.1f} MB over {self._transport.name} (last: {kind})."

    def predict(
        self,
        scan: Path | str | np.ndarray,
        *,
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
        layout: str | None = None,
    ) -> Prediction:
        """The prediction of one scan; arguments and errors as of `kerasseg.load(…).predict`."""
        if isinstance(scan, np.ndarray):
            return self.segment(array_case(scan, spacing, self.metadata.modalities))
        inputs = find_inputs([Path(scan)], self.data, layout)
        if len(inputs) > 1:
            raise UserError(
                f"{scan} holds {len(inputs)} cases, such as {inputs[0].source.case_id} and "
                f"{inputs[1].source.case_id}: name one of them, or use kerasseg segment."
            )
        return self.segment(inputs[0].source.load())

    def segment(self, case: Case, *, uncertainty: bool = False) -> Prediction:
        """The prediction of a raw case.

        Probabilities come as float32 over gRPC and as float16 over REST, where a volume of
        float32 would be text.

        Raises `UserError` for a case that the model does not take, `ServerError` for what the
        server answers instead.
        """
        if uncertainty:
            raise UserError("A server tells no uncertainty: use kerasseg predict --uncertainty.")
        metadata = self.metadata
        check_case(case)
        if case.image.shape[0] == 1 and metadata.dimensions == 3:
            raise UserError(
                f"{case.case_id} is a single slice, but the model {self.model} takes volumes: give "
                "the whole scan, or use a 2-D model."
            )
        spacing = np.asarray(case.spacing, np.float32)
        if self.probabilities and isinstance(self._transport, GrpcTransport):
            labels, probabilities = self._segment_floats(case.image, spacing)
        else:
            labels, probabilities = self._segment_bytes(case.image, spacing)
        canonical = metadata.canonical[labels]
        if (canonical == UNKNOWN).any():
            raise ServerError(
                f"The server's labels hold {np.unique(labels).tolist()}, but its metadata names "
                f"{dict(metadata.labels)}: export the model again."
            )
        return Prediction(case, metadata.target, canonical, probabilities)

    def call(self, signature: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """One request of any signature: arrays, bytes and strings in and out.

        Raises `ServerError`.
        """

        def work() -> tuple[dict[str, Any], int]:
            return self._transport.predict(self.model, self.version, signature, inputs)

        outputs, size = retry(work, self._retries, self._say)
        self.sent_bytes += size
        return outputs

    def _segment_bytes(
        self, image: np.ndarray, spacing: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        packed = self.sent = pack_volume(image, compress=self._compress)
        outputs = self.call(
            "segment_bytes",
            {
                "data_bytes": packed.data,
                "shape": np.array(packed.shape, np.int32),
                "dtype": packed.dtype,
                "compression": packed.compression,
                "spacing": spacing,
                "probabilities": np.array(self.probabilities),
            },
        )
        shape = image.shape[:3]
        labels = self._array(outputs, "labels_bytes", np.uint8, shape)
        if not self.probabilities:
            return labels, self._none()
        maps = self._array(outputs, "probabilities_bytes", "<f2", (*shape, self._channels))
        return labels, maps.astype(np.float32)

    def _segment_floats(
        self, image: np.ndarray, spacing: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        self.sent = PackedVolume(b"", image.shape, "float32", "", image.size * 4)
        outputs = self.call(
            "segment", {"volume": image, "spacing": spacing, "probabilities": np.array(True)}
        )
        labels = np.asarray(outputs.get("labels"))
        maps = np.asarray(outputs.get("probabilities"))
        wanted = (*image.shape[:3], self._channels)
        if labels.shape != wanted[:3] or maps.shape != wanted:
            raise self._not_ours("segment", f"the shapes {labels.shape} and {maps.shape}")
        return labels, maps

    def _array(
        self, outputs: Mapping[str, Any], name: str, dtype: Any, shape: tuple[int, ...]
    ) -> np.ndarray:
        data = outputs.get(name)
        wanted = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if not isinstance(data, bytes) or len(data) != wanted:
            found = f"{len(data)} bytes" if isinstance(data, bytes) else "nothing"
            raise self._not_ours(name, f"{found} instead of {wanted}")
        return np.frombuffer(data, dtype).reshape(shape)

    @property
    def _channels(self) -> int:
        return len(anatomy.TARGETS[self.target])

    def _none(self) -> np.ndarray:
        return np.zeros((0, 0, 0, self._channels), np.float32)

    def _not_ours(self, name: str, found: str) -> ServerError:
        return ServerError(
            f"{self.connection.address}: {name} of the model {self.model} holds {found}: is it one "
            "that kerasseg export wrote?"
        )
