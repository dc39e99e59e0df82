"""`Client`: a served model that takes raw scans.

`Metadata`: what a served model says of itself.

A volume -> the smallest bytes that hold it exactly.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from isal import igzip
from pydantic import ValidationError

from kerasseg import anatomy
from kerasseg.config.data import DataSettings
from kerasseg.datasets.case import Case
from kerasseg.datasets.checks import check_case
from kerasseg.datasets.inputs import find_inputs
from kerasseg.datasets.labels import label_ids
from kerasseg.errors import UserError
from kerasseg.prediction.model import Prediction, array_case
from kerasseg.serving.client.transport import (
    Connection,
    GrpcTransport,
    RestTransport,
    ServerError,
    parse_server,
    retry,
)

_CANONICAL = {**{name: i for i, name in anatomy.LABELS.items()}, "tumour": anatomy.TUMOUR}
UNKNOWN = 255
"""In `Metadata.canonical`: an id that no label has."""


@dataclass(frozen=True)
class Metadata:
    """modalities: channels of a volume, in order. dimensions: 2 or 3. labels: name -> id that the
    server writes. target: a key of `anatomy.TARGETS`. config: the run's settings, if they are
    told."""

    modalities: tuple[str, ...]
    dimensions: int
    labels: Mapping[str, int]
    target: str
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def data(self) -> DataSettings:
        """The run's section `data`; if it is not told, one that has these modalities and labels."""
        section = self.config.get("data")
        if isinstance(section, Mapping):
            try:
                told = DataSettings.model_validate(dict(section))
                return told.model_copy(update={"modalities": self.modalities})
            except ValidationError:
                pass  # of another version of kerasseg; what follows is enough
        return self._likely_data()

    def _likely_data(self) -> DataSettings:
        colours = set(self.modalities) <= {"grey", "red", "green", "blue"}
        tumour = set(self.labels) == {"background", "tumour"}
        told = {"root": "not here", "modalities": self.modalities}
        if colours:
            return DataSettings.model_validate({**told, "layout": "image_pairs"})
        if not tumour:
            # Those of a public data set are its layout's own, which a scan's files may know better.
            for layout in ("brats_nifti", "nnunet", "msd"):
                likely = DataSettings.model_validate({**told, "layout": layout})
                ids = label_ids(None, likely, self.target, None)
                if all(ids[_CANONICAL[name]] == own for name, own in self.labels.items()):
                    return likely
        return DataSettings.model_validate(
            {
                **told,
                "layout": "brats_nifti",
                "classes": "tumour" if tumour else "subregions",
                "label_map": {own: _CANONICAL[name] for name, own in self.labels.items()},
            }
        )

    @property
    def canonical(self) -> np.ndarray:
        """(256,) uint8: id that the server writes -> canonical id."""
        table = np.full(256, UNKNOWN, np.uint8)
        for name, own in self.labels.items():
            table[own] = _CANONICAL[name]
        return table


def _first(config: str) -> Mapping[str, Any]:
    """The settings of the first of the runs, whose configurations are documents of one YAML."""
    first = next(iter(yaml.safe_load_all(config)), None)
    return first if isinstance(first, Mapping) else {}


def read_metadata(text: bytes) -> Metadata:
    """The JSON of the signature `metadata`. Raises `ServerError` if it is not that of kerasseg."""
    try:
        told = json.loads(text)
        config = told.get("config") or {}
        labels = {str(name): int(own) for name, own in told["labels"].items()}
        metadata = Metadata(
            tuple(told["modalities"]),
            int(told["dimensions"]),
            labels,
            told["target"],
            _first(config) if isinstance(config, str) else config,
        )
    except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ServerError(
            f"The model's metadata cannot be understood ({type(error).__name__}: {error}): is it "
            "one that kerasseg export wrote?"
        ) from None
    unknown = set(labels) - set(_CANONICAL)
    if unknown or metadata.target not in anatomy.TARGETS:
        raise ServerError(
            f"The model's labels are {', '.join(labels)} and its target is {metadata.target}, "
            f"expected some of {', '.join(_CANONICAL)} and one of {', '.join(anatomy.TARGETS)}: it "
            "is of another version of kerasseg."
        )
    return metadata


_LEVEL = 2
"""Of isal's 0 to 3."""
_LARGEST_MESSAGE = 2**31 - 2**16
"""Bytes of a protobuf message, less what stands around the volume."""


@dataclass(frozen=True)
class PackedVolume:
    """data: the values in C order, little-endian, compressed as `compression` ("" or "gzip") says.
    raw_bytes: what they weigh as float32."""

    data: bytes
    shape: tuple[int, ...]
    dtype: str
    compression: str
    raw_bytes: int


def pack_volume(image: np.ndarray, *, compress: bool) -> PackedVolume:
    """(D, H, W, C) float32 -> bytes of the first of int16, float16 and float32 that is exact.

    Raises `UserError` for a volume that is too large for one message.
    """
    values = exact(image)
    data: bytes = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    if compress:
        data = igzip.compress(data, _LEVEL)
    if len(data) > _LARGEST_MESSAGE:
        raise UserError(
            f"The volume {image.shape} weighs {len(data) / 2**30:.1f} GiB as {values.dtype}, more "
            "than the 2 GiB of one message: crop it, or compress it with --compression gzip."
        )
    return PackedVolume(
        data, image.shape, values.dtype.name, "gzip" if compress else "", image.size * 4
    )


def exact(image: np.ndarray) -> np.ndarray:
    """The same values as int16 if all are whole and fit, else as float16 if it holds them, else as
    float32."""
    int16 = np.iinfo(np.int16)
    if int16.min <= image.min() and image.max() <= int16.max:
        whole = image.astype(np.int16)
        if np.array_equal(whole, image):
            return whole
    with np.errstate(over="ignore"):
        half = image.astype(np.float16)
    if np.array_equal(half, image):
        return half
    return np.asarray(image, np.float32)


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
