"""tf.train.Example without TensorFlow, so that converting processes start fast and stay small.

The messages are declared here field by field as in tensorflow/core/example/{feature,example}.proto,
in a descriptor pool of their own; the bytes are the same.
"""

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

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
    """Features -> the bytes of a tf.train.Example; the first value of a list gives its kind."""
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
    """The bytes of a tf.train.Example -> its features."""
    example = _Example.FromString(data)
    parsed = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind") or "bytes_list"
        parsed[name] = list(getattr(feature, kind).value)
    return parsed
