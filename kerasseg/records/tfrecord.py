"""TFRecord files and tf.train.Example without TensorFlow.

So converting processes start fast and stay small. The messages are declared field by field as in
tensorflow/core/example/{feature,example}.proto, in a descriptor pool of their own; the bytes are
the same. A record is framed as length, checksum, payload, checksum, where checksums are masked
CRC-32C (tensorflow.org/tutorials/load_data/tfrecord).
"""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from kerasseg.errors import UserError

_PACKAGE = "kerasseg.example"
_FIELD = descriptor_pb2.FieldDescriptorProto


def _message_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="kerasseg/example.proto", package=_PACKAGE, syntax="proto3"
    )

    def field(
        message: Any, name: str, number: int, kind: int, type_name: str = "", *, repeated: bool
    ) -> Any:
        label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
        added = message.field.add(name=name, number=number, type=kind, label=label)
        if type_name:
            added.type_name = f".{_PACKAGE}.{type_name}"
        return added

    for name, kind in (
        ("BytesList", _FIELD.TYPE_BYTES),
        ("FloatList", _FIELD.TYPE_FLOAT),
        ("Int64List", _FIELD.TYPE_INT64),
    ):
        field(file.message_type.add(name=name), "value", 1, kind, repeated=True)

    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, list_name in enumerate(("BytesList", "FloatList", "Int64List"), start=1):
        option = field(
            feature,
            list_name.replace("List", "_list").lower(),
            number,
            _FIELD.TYPE_MESSAGE,
            list_name,
            repeated=False,
        )
        option.oneof_index = 0

    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    field(entry, "key", 1, _FIELD.TYPE_STRING, repeated=False)
    field(entry, "value", 2, _FIELD.TYPE_MESSAGE, "Feature", repeated=False)
    field(features, "feature", 1, _FIELD.TYPE_MESSAGE, "Features.FeatureEntry", repeated=True)
    example = file.message_type.add(name="Example")
    field(example, "features", 1, _FIELD.TYPE_MESSAGE, "Features", repeated=False)

    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Example"))


_Example = _message_class()


def serialize(features: Mapping[str, list[bytes] | list[float] | list[int]]) -> bytes:
    """Return features as the bytes of a tf.train.Example; a list's first value gives its kind."""
    example = _Example()
    for name, values in features.items():
        feature = example.features.feature[name]
        if not values or isinstance(values[0], bytes):
            feature.bytes_list.value.extend(values)
        elif isinstance(values[0], float):
            feature.float_list.value.extend(values)
        else:
            feature.int64_list.value.extend(values)
    return example.SerializeToString(deterministic=True)


def parse(data: bytes) -> dict[str, list[Any]]:
    """Return the features in the bytes of a tf.train.Example."""
    example = _Example.FromString(data)
    parsed = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind") or "bytes_list"
        parsed[name] = list(getattr(feature, kind).value)
    return parsed


_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
FRAMING_BYTES = _HEADER.size + _FOOTER.size


def masked_crc(data: bytes) -> int:
    """Return the CRC-32C of `data`, rotated and shifted as TFRecord asks."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def write_record(file: BinaryIO, payload: bytes) -> int:
    """Append one record; returns the masked checksum of the payload."""
    length = struct.pack("<Q", len(payload))
    checksum = masked_crc(payload)
    file.write(length + struct.pack("<I", masked_crc(length)))
    file.write(payload)
    file.write(_FOOTER.pack(checksum))
    return checksum


def read_record(path: Path, offset: int, case_id: str) -> bytes:
    """Read and check the record at `offset`. Raises `UserError` naming file and case."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            header = file.read(_HEADER.size)
            if len(header) == _HEADER.size:
                length, crc = _HEADER.unpack(header)
                if crc == masked_crc(header[:8]):
                    payload = file.read(length)
                    footer = file.read(_FOOTER.size)
                    if len(footer) == _FOOTER.size and _FOOTER.unpack(footer)[0] == masked_crc(
                        payload
                    ):
                        return payload
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}.") from None
    raise UserError(
        f"{path}: the record of case {case_id} at byte {offset} is damaged (its checksum does not "
        "match). Bring the store up to date with kerasseg convert."
    )
