"""`Client` and `kerasseg segment`: scans to a TensorFlow Serving server, segmentations back."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from isal import igzip
from pydantic import ValidationError

from kerasseg import anatomy
from kerasseg.config.data import DataSettings
from kerasseg.config.layouts import LAYOUTS
from kerasseg.config.load import parse_yaml
from kerasseg.datasets.case import Case, Input
from kerasseg.datasets.checks import check_case, note_on_intensities
from kerasseg.datasets.inputs import find_inputs
from kerasseg.datasets.labels import label_ids
from kerasseg.datasets.outputs import OutputFiles
from kerasseg.errors import UserError
from kerasseg.prediction.predict_files import (
    Outcome,
    OutputOptions,
    predict_files,
    write_prediction,
)
from kerasseg.prediction.prediction import Prediction, array_case
from kerasseg.run import own_version
from kerasseg.serving.client_transport import (
    Connection,
    GrpcTransport,
    RestTransport,
    ServerError,
    parse_server,
    retry,
)

DEFAULT_MODEL = "kerasseg"
UNKNOWN = 255
"""In `Metadata.canonical`: an id that no label has."""
_CANONICAL = {**{name: i for i, name in anatomy.LABELS.items()}, "tumour": anatomy.TUMOUR}
_GZIP_LEVEL = 2
"""isal has the levels 0 to 3."""
_LARGEST_MESSAGE = 2**31 - 2**16
"""Bytes of a protobuf message, less what stands around the volume."""
_SUFFIXES = (".nii.gz", ".nii", ".png")


class Client:
    """A model on a TensorFlow Serving server: raw scans to predictions on the scans' own grid.

    Use it in `with`, or close it.

    Args:
        server: HOST:PORT.
        model: Name of the model on the server.
        version: Its version, or None for the one that answers.
        rest: REST instead of gRPC.
        probabilities: Whether predictions have probabilities.
        compression: gzip, none, or auto: gzip unless the server is on this machine.
        retries: How often a server that is gone is asked again.
        say: Called with a line each time a server is gone.
        connection: Further options of `Connection`: tls, authority, certificate, key, deadline.

    Raises:
        UserError: For a malformed address and a missing extra.
    """

    members = 1
    """The number of predictions that an uncertainty would be of: a server answers one."""

    def __init__(
        self,
        server: str,
        model: str = DEFAULT_MODEL,
        *,
        version: int | None = None,
        rest: bool = False,
        probabilities: bool = False,
        compression: Literal["auto", "gzip", "none"] = "auto",
        retries: int = 8,
        say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
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
        """Close the connection."""
        self._transport.close()

    @cached_property
    def metadata(self) -> "Metadata":
        """The description of the model, asked for once."""
        outputs = self.call("metadata", {"request": ""})
        text = outputs.get("json", outputs.get(""))
        return read_metadata(text if isinstance(text, bytes) else b"")

    @property
    def data(self) -> DataSettings:
        """The layout of the model's own scans, with its modalities."""
        return self.metadata.data

    @property
    def target(self) -> str:
        """The predicted target, a key of `anatomy.TARGETS`."""
        return self.metadata.target

    def predict(
        self,
        scan: Path | str | np.ndarray,
        *,
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
        layout: str | None = None,
    ) -> Prediction:
        """Return the prediction of one scan; arguments and errors are those of `Model.predict`."""
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
        """Return the prediction of a raw case.

        Probabilities come as float32 over gRPC, and as float16 over REST, where a volume of float32
        would be text.

        Raises:
            UserError: For a case that the model does not take.
            ServerError: For what the server answers instead of a segmentation.
        """
        if uncertainty:
            raise UserError("A server tells no uncertainty: use kerasseg predict --uncertainty.")
        metadata = self.metadata
        case = check_case(case)
        if case.image.shape[0] == 1 and metadata.dimensions == 3:
            raise UserError(
                f"{case.case_id} is a single slice, but the model {self.model} takes volumes: give "
                "the whole scan, or use a 2-D model."
            )
        spacing = np.asarray(case.spacing, np.float32)
        if self.probabilities and isinstance(self._transport, GrpcTransport):
            labels, probabilities, said = self._segment_floats(case.image, spacing)
        else:
            labels, probabilities, said = self._segment_bytes(case.image, spacing)
        case.notes += note_on_intensities(case, metadata.data)
        case.notes += [said.removesuffix(".")] if said else []
        canonical = metadata.canonical[labels]
        if (canonical == UNKNOWN).any():
            raise ServerError(
                f"The server's labels hold {np.unique(labels).tolist()}, but its metadata names "
                f"{dict(metadata.labels)}: export the model again."
            )
        return Prediction(case, metadata.target, canonical, probabilities)

    def call(self, signature: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request to any signature: arrays, bytes and strings in and out.

        Raises:
            ServerError: If the server does not answer.
        """
        outputs, size = retry(
            lambda: self._transport.predict(self.model, self.version, signature, inputs),
            self._retries,
            self._say,
        )
        self.sent_bytes += size
        return outputs

    def format_sent(self) -> str:
        """Return a sentence on how the volumes were sent, and the bytes of all requests so far."""
        if self.sent is None:
            return "Nothing was sent."
        kind = f"{self.sent.dtype}, {self.sent.compression or 'not compressed'}"
        return f"Sent {self.sent_bytes / 1e6:.1f} MB over {self._transport.name} (last: {kind})."

    def _segment_bytes(
        self, image: np.ndarray, spacing: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, str]:
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
        shape, channels = image.shape[:3], len(anatomy.TARGETS[self.target])
        labels = self._read_bytes(outputs, "labels_bytes", np.uint8, shape)
        if not self.probabilities:
            return labels, np.zeros((0, 0, 0, channels), np.float32), _warning_in(outputs)
        maps = self._read_bytes(outputs, "probabilities_bytes", "<f2", (*shape, channels))
        return labels, maps.astype(np.float32), _warning_in(outputs)

    def _segment_floats(
        self, image: np.ndarray, spacing: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, str]:
        self.sent = PackedVolume(b"", image.shape, "float32", "")
        outputs = self.call(
            "segment", {"volume": image, "spacing": spacing, "probabilities": np.array(True)}
        )
        labels = np.asarray(outputs.get("labels"))
        maps = np.asarray(outputs.get("probabilities"))
        expected = (*image.shape[:3], len(anatomy.TARGETS[self.target]))
        if labels.shape != expected[:3] or maps.shape != expected:
            raise self._strange("segment", f"the shapes {labels.shape} and {maps.shape}")
        return labels, maps, _warning_in(outputs)

    def _read_bytes(
        self, outputs: Mapping[str, Any], name: str, dtype: Any, shape: tuple[int, ...]
    ) -> np.ndarray:
        data = outputs.get(name)
        expected = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if not isinstance(data, bytes) or len(data) != expected:
            found = f"{len(data)} bytes" if isinstance(data, bytes) else "nothing"
            raise self._strange(name, f"{found} instead of {expected}")
        return np.frombuffer(data, dtype).reshape(shape)

    def _strange(self, name: str, found: str) -> ServerError:
        return ServerError(
            f"{self.connection.address}: {name} of the model {self.model} holds {found}: is it one "
            "that kerasseg export wrote?"
        )


def _warning_in(outputs: Mapping[str, Any]) -> str:
    """Return what a server says of a scan; models of before say nothing."""
    said = outputs.get("warnings", "")
    return said.decode() if isinstance(said, bytes) else str(said)


@dataclass(frozen=True)
class Metadata:
    """The description that a served model gives of itself.

    Attributes:
        modalities: Channels of a volume, in order.
        dimensions: 2 or 3.
        labels: Name of a label to the id that the server writes.
        target: A key of `anatomy.TARGETS`.
        config: The run's settings; empty if the model does not have them.
    """

    modalities: tuple[str, ...]
    dimensions: int
    labels: Mapping[str, int]
    target: str
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def data(self) -> DataSettings:
        """The run's section `data`, or one that has the same modalities and labels."""
        section = self.config.get("data")
        if isinstance(section, Mapping):
            try:
                of_run = DataSettings.model_validate(dict(section))
                return of_run.model_copy(update={"modalities": self.modalities})
            except ValidationError:
                pass  # of another version of kerasseg; what follows is enough
        return self._likely_data()

    def _likely_data(self) -> DataSettings:
        known = {"root": "not here", "modalities": self.modalities}
        if set(self.modalities) <= {"grey", "red", "green", "blue"}:
            return DataSettings.model_validate({**known, "layout": "image_pairs"})
        tumour = set(self.labels) == {"background", "tumour"}
        if not tumour:
            # The ids of a public data set are its layout's own; a scan's files may know better.
            for layout in (name for name, facts in LAYOUTS.items() if facts.label_ids):
                likely = DataSettings.model_validate({**known, "layout": layout})
                ids = label_ids(None, likely, self.target, None)
                if all(ids[_CANONICAL[name]] == own for name, own in self.labels.items()):
                    return likely
        return DataSettings.model_validate(
            {
                **known,
                "layout": "brats_nifti",
                "classes": "tumour" if tumour else "subregions",
                "label_map": {own: _CANONICAL[name] for name, own in self.labels.items()},
            }
        )

    @property
    def canonical(self) -> np.ndarray:
        """The canonical id of each id that the server may write, (256,) uint8."""
        table = np.full(256, UNKNOWN, np.uint8)
        for name, own in self.labels.items():
            table[own] = _CANONICAL[name]
        return table


def read_metadata(text: bytes) -> Metadata:
    """Read the JSON of the signature `metadata`; raise `ServerError` if it is not kerasseg's."""
    try:
        contents = json.loads(text)
        config = contents.get("config") or {}
        if isinstance(config, str):  # YAML, a document for each run
            config = parse_yaml(config.partition("\n---\n")[0])
        metadata = Metadata(
            tuple(contents["modalities"]),
            int(contents["dimensions"]),
            {str(name): int(own) for name, own in contents["labels"].items()},
            contents["target"],
            config if isinstance(config, Mapping) else {},
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ServerError(
            f"The model's metadata cannot be understood ({type(error).__name__}: {error}): is it "
            "one that kerasseg export wrote?"
        ) from None
    if set(metadata.labels) - set(_CANONICAL) or metadata.target not in anatomy.TARGETS:
        raise ServerError(
            f"The model's labels are {', '.join(metadata.labels)} and its target is "
            f"{metadata.target}, expected some of {', '.join(_CANONICAL)} and one of "
            f"{', '.join(anatomy.TARGETS)}: it is of another version of kerasseg."
        )
    return metadata


@dataclass(frozen=True)
class PackedVolume:
    """A volume as it is sent.

    Attributes:
        data: The values in C order, little-endian, perhaps compressed.
        shape: (D, H, W, C).
        dtype: int16, float16 or float32.
        compression: "" or "gzip".
    """

    data: bytes
    shape: tuple[int, ...]
    dtype: str
    compression: str


def pack_volume(image: np.ndarray, *, compress: bool) -> PackedVolume:
    """Pack (D, H, W, C) float32 as the first of int16, float16 and float32 that holds it exactly.

    Raises:
        UserError: If the volume is too large for one message.
    """
    values = _smallest_exact(image)
    data: bytes = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    if compress:
        data = igzip.compress(data, _GZIP_LEVEL)
    if len(data) > _LARGEST_MESSAGE:
        raise UserError(
            f"The volume {image.shape} weighs {len(data) / 2**30:.1f} GiB as {values.dtype}, more "
            "than the 2 GiB of one message: crop it, or compress it with --compression gzip."
        )
    return PackedVolume(data, image.shape, values.dtype.name, "gzip" if compress else "")


def _smallest_exact(image: np.ndarray) -> np.ndarray:
    int16 = np.iinfo(np.int16)
    if int16.min <= image.min() and image.max() <= int16.max:
        whole = image.astype(np.int16)
        if np.array_equal(whole, image):
            return whole
    with np.errstate(over="ignore"):
        half = image.astype(np.float16)
    return half if np.array_equal(half, image) else np.asarray(image, np.float32)


def segment_files(
    client: Client,
    paths: Sequence[Path],
    output: Path,
    options: OutputOptions = OutputOptions(),  # noqa: B008 (frozen)
    *,
    layout: str | None = None,
    overlays: int = 0,
) -> Outcome:
    """Segment every case below `paths` into `output`, as `kerasseg predict` would.

    Args:
        paths: Files and folders of cases.
        output: A folder, or the file (.nii.gz, .nii, .png) of the only case.
        layout: Layout of the files, instead of what they look like.
        overlays: How many of the cases are drawn.

    Raises:
        UserError: For what concerns all cases: a server that does not answer, an input without a
            case, several cases for one file, a folder of predictions that were made otherwise.
    """
    for path in paths:
        if not path.exists():
            raise UserError(f"INPUT: {path} does not exist (looked from {Path.cwd()}).")
        if path.resolve() == output.resolve():
            raise UserError(f"--output {output} is the input: name another file or folder.")
    suffix = next((end for end in _SUFFIXES if output.name.lower().endswith(end)), "")
    if suffix and not output.is_dir():
        inputs = find_inputs(paths, client.data, layout)
        return _segment_into_file(client, inputs, output, suffix, options, overlay=overlays > 0)
    inside = any(path.resolve() in output.resolve().parents for path in paths)
    inputs = find_inputs(paths, client.data, layout, output if inside else None)
    where = f"{client.connection.address}/{client.model}/{client.version or 'newest'}"
    origin = {
        "kerasseg": own_version(),
        "runs": [where],
        "networks": [where],
        "combine": "mean",
        "target": client.target,
        "settings": [],
        "postprocessing": [],
        "labels": options.labels,
    }
    return predict_files(client, inputs, output, origin, options, overlays=overlays)


@dataclass(frozen=True)
class _OneFile(OutputFiles):
    """The output files of a case whose label has a name of the user's choice."""

    path: Path

    @property
    def label(self) -> Path:
        return self.path


def _segment_into_file(
    client: Client,
    inputs: list[Input],
    output: Path,
    suffix: str,
    options: OutputOptions,
    *,
    overlay: bool,
) -> Outcome:
    if len(inputs) > 1:
        names = f"{inputs[0].source.case_id} and {inputs[1].source.case_id}"
        raise UserError(
            f"--output {output} is one file, but there are {len(inputs)} cases, such as {names}: "
            "name a folder."
        )
    case = inputs[0]
    if case.picture != (suffix == ".png"):
        expected = ".png, as the input is a picture" if case.picture else ".nii.gz"
        raise UserError(f"--output {output}: expected a file that ends with {expected}.")
    if any(output.resolve() == path.resolve() for path in case.source.files):
        raise UserError(f"--output {output} is the scan itself: name another file.")
    ids = label_ids(options.labels, client.data, client.target, case.label_ids)
    prediction = client.segment(case.source.load())
    files = _OneFile(output.parent, output.name[: -len(suffix)], case.picture, output)
    write_prediction(prediction, files, ids, probabilities=options.probabilities, overlay=overlay)
    name = case.source.case_id
    return Outcome(written=[name], notes={name: prediction.case.notes})
