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
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from kerasseg.errors import UserError

_EXAMPLE_PROTO = """
  name: "kerasseg/example.proto" package: "kerasseg.example" syntax: "proto3"
  message_type { name: "BytesList" field { name: "value" number: 1 label: LABEL_REPEATED
    type: TYPE_BYTES } }
  message_type { name: "FloatList" field { name: "value" number: 1 label: LABEL_REPEATED
    type: TYPE_FLOAT } }
  message_type { name: "Int64List" field { name: "value" number: 1 label: LABEL_REPEATED
    type: TYPE_INT64 } }
  message_type { name: "Feature" oneof_decl { name: "kind" }
    field { name: "bytes_list" number: 1 label: LABEL_OPTIONAL type: TYPE_MESSAGE
      type_name: ".kerasseg.example.BytesList" oneof_index: 0 }
    field { name: "float_list" number: 2 label: LABEL_OPTIONAL type: TYPE_MESSAGE
      type_name: ".kerasseg.example.FloatList" oneof_index: 0 }
    field { name: "int64_list" number: 3 label: LABEL_OPTIONAL type: TYPE_MESSAGE
      type_name: ".kerasseg.example.Int64List" oneof_index: 0 } }
  message_type { name: "Features"
    nested_type { name: "FeatureEntry" options { map_entry: true }
      field { name: "key" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
      field { name: "value" number: 2 label: LABEL_OPTIONAL type: TYPE_MESSAGE
        type_name: ".kerasseg.example.Feature" } }
    field { name: "feature" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE
      type_name: ".kerasseg.example.Features.FeatureEntry" } }
  message_type { name: "Example" field { name: "features" number: 1 label: LABEL_OPTIONAL
    type: TYPE_MESSAGE type_name: ".kerasseg.example.Features" } }
"""
_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(text_format.Parse(_EXAMPLE_PROTO, descriptor_pb2.FileDescriptorProto()))
_Example: Any = message_factory.GetMessageClass(
    _POOL.FindMessageTypeByName("kerasseg.example.Example")
)


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
