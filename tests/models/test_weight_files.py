"""Files of weights, written here byte by byte: neither PyTorch nor safetensors is needed."""

import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from kerasseg.errors import UserError
from kerasseg.models.weight_files import read_tensors

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


class Name(NamedTuple):
    text: str


class Call(NamedTuple):
    function: Name
    arguments: tuple


class Stored(NamedTuple):
    identity: tuple


class Raw(NamedTuple):
    instructions: bytes


def pickled(value: Any) -> bytes:
    """The instructions of protocol 2 that put `value` on the stack."""
    match value:
        case Raw(instructions):
            return instructions
        case Name(text):
            return b"c" + text.replace(" ", "\n").encode() + b"\n"
        case Call(function, arguments):
            return pickled(function) + pickled(arguments) + b"R"
        case Stored(identity):
            return pickled(identity) + b"Q"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            data = value.to_bytes(9, "little", signed=True)
            return b"\x8a" + bytes([len(data)]) + data
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case None:
            return b"N"
        case tuple():
            return b"(" + b"".join(map(pickled, value)) + b"t"
        case list():
            return b"](" + b"".join(map(pickled, value)) + b"e"
        case dict():
            return b"}(" + b"".join(pickled(x) for pair in value.items() for x in pair) + b"u"
    raise TypeError(value)


def whole(value: Any) -> bytes:
    return b"\x80\x02" + pickled(value) + b"."


def tensor(size=(2, 3), stride=(3, 1), offset=0, count=6, key="0", kind="Float") -> Call:
    storage = Stored(("storage", Name(f"torch {kind}Storage"), key, "cpu", count))
    hooks = Call(Name("collections OrderedDict"), ())
    arguments = (storage, offset, size, stride, False, hooks)
    return Call(Name("torch._utils _rebuild_tensor_v2"), arguments)


SIX = np.arange(6, dtype="<f4")


def zipped(content: Any, compression: int = zipfile.ZIP_STORED, **storages: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("net/data.pkl", whole(content))
        archive.writestr("net/byteorder", "little")
        for key, values in ({"0": SIX.tobytes()} | storages).items():
            archive.writestr(f"net/data/{key}", values)
    return file.getvalue()


def legacy(content: Any, count: int = 6, **storages: bytes) -> bytes:
    stored = {"0": SIX.tobytes()} | storages
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    pickles = b"".join(map(whole, (1001, system, content, list(stored))))
    return MAGIC + pickles + b"".join(struct.pack("<q", count) + v for v in stored.values())


def safetensors(header: dict | str, values: bytes = SIX.tobytes()) -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text)) + text + values


def read(folder: Path, data: bytes) -> dict[str, np.ndarray]:
    (folder / "net.pth").write_bytes(data)
    return read_tensors(folder / "net.pth")


@pytest.mark.parametrize("container", [zipped, legacy])
def test_tensors_are_read_as_views_of_their_storage(tmp_path: Path, container) -> None:
    bfloat16 = (SIX.view("<u4") >> 16).astype("<u2").tobytes()
    parameter = Call(Name("torch._utils _rebuild_parameter"), (tensor(), True, {}))
    state = {
        "module.whole": tensor(),
        "module.transposed": tensor((3, 2), (1, 3)),
        "module.part": tensor((2, 2), (3, 1), 1),
        "module.number": tensor((), (), 5),
        "module.none": tensor((0, 4), (4, 1)),
        "module.parameter": parameter,
        "module.half": tensor(key="1", kind="BFloat16"),
    }
    ordered = pickled(Call(Name("collections OrderedDict"), ())) + pickled(state)[1:]
    # PyTorch keeps the versions of its layers as an attribute of the dictionary.
    state_dict = Raw(ordered + pickled({"_metadata": {"": {"version": 1}}}) + b"b")
    epoch = {"epoch": 3, "loss": None, "optimizer": {"state": {0: {"step": tensor()}}}}
    content = container({"model": state_dict} | epoch, **{"1": bfloat16})
    tensors = read(tmp_path, content)
    six = SIX.reshape(2, 3)
    expected = {
        "whole": six,
        "transposed": six.T,
        "part": six[:, 1:],
        "number": np.float32(5),
        "none": np.zeros((0, 4), np.float32),
        "parameter": six,
        "half": six,
    }
    assert list(tensors) == list(expected)
    for name, values in expected.items():
        assert tensors[name].dtype == np.float32
        np.testing.assert_array_equal(tensors[name], values, err_msg=name)


def test_safetensors_are_read(tmp_path: Path) -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        "b": {"dtype": "BF16", "shape": [1], "data_offsets": [22, 24]},
        "c": {"dtype": "F64", "shape": [], "data_offsets": [16, 24]},
    }
    tensors = read(tmp_path, safetensors(header))
    np.testing.assert_array_equal(tensors["a"], [[0, 1], [2, 3]])
    np.testing.assert_array_equal(tensors["b"], np.float32([5]))
    assert tensors["c"] == SIX[4:].view("<f8")[0]


ENTRY = {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}
MARKS, LISTS = Raw(b"(" * 110_000), Raw(b"]" * 110_000)
TUPLES = Raw(b")" + b"\x85" * 10_000)
BOMB = Raw(b"}" + b"\x86".join([b"2"] * 40))  # a pair of a pair of …, by an instruction of copying

REFUSED = {
    "out of range": ({"a": tensor(offset=1)}, "outside of its storage of 6 values"),
    "long stride": ({"a": tensor(stride=(4, 1))}, "outside of its storage"),
    "negative": ({"a": tensor(stride=(-3, 1), offset=3)}, "not a whole number from 0"),
    "true as a size": ({"a": tensor(size=(True, 3))}, "not a whole number from 0"),
    "a billion": ({"a": tensor((10**9,), (1,), count=10**9)}, "storage 0 "),
    "one for a billion": ({"a": tensor((10**9,), (0,))}, "outside of its storage"),
    "more sizes than strides": ({"a": tensor(stride=(1,))}, "is not a whole"),
    "two claims": ({"a": tensor(), "b": tensor((1,), (1,), count=1)}, "two sizes or types"),
    "a function": (Call(Name("posix system"), ("touch ran",)), "asks for posix.system"),
    "built-in": ({"a": Call(Name("builtins eval"), ("1",))}, "asks for builtins.eval"),
    "a whole network": ({"a": Name("torch.nn Linear")}, "asks for torch.nn.Linear"),
    "text as a function": (Call(Raw(pickled("posix.system")), ("x",)), "calls what is no function"),
    "no storage": (Call(Name("torch._utils _rebuild_tensor_v2"), (1, 0, (), ())), "without a stor"),
    "marks": (MARKS, "nested without end"),
    "lists": (LISTS, "nested without end"),
    "tuples": (TUPLES, "nested or very long tuples"),
    "copies": (BOMB, "the instruction DUP"),
    "a tuple as a name": ({(1, 2): tensor()}, "neither text nor number"),
    "numbers": ({"a": 1, "b": [tensor()]}, "holds no dictionary of tensors"),
    "a list": ([tensor()], "holds no dictionary of tensors"),
    "two networks": ({"net": {"a": tensor()}, "ema": {"a": tensor()}}, "several .*net, ema"),
    "nothing to pop": (Raw(b"\x85"), "lacks its values"),
    "memo": (Raw(b"j\xff\xff\xff\xff"), "is not a whole"),
}


@pytest.mark.parametrize("container", [zipped, legacy])
@pytest.mark.parametrize("name", REFUSED)
def test_a_pickle_of_more_than_tensors_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, container, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    content, words = REFUSED[name]
    with pytest.raises(UserError, match=words) as refusal:
        read(tmp_path, container(content))
    assert str(tmp_path / "net.pth") in str(refusal.value)
    assert str(refusal.value).count("\n") == 0
    assert not (tmp_path / "ran").exists()


GOOD = {"a": tensor()}
FILES = {
    "compressed": (zipped(GOOD, zipfile.ZIP_DEFLATED), "members are compressed"),
    "a zip of something": (zipped(GOOD).replace(b"data.pkl", b"data.txt"), "without the data.pkl"),
    "big-endian": (zipped(GOOD).replace(b"little", b"bigger"), "whole|big-endian"),
    "flipped": (zipped(GOOD).replace(SIX.tobytes(), SIX[::-1].tobytes()), "CRC"),
    "storage that is short": (zipped(GOOD, **{"0": b"1234"}), "storage 0 has 4 bytes, not 24"),
    "missing storage": (legacy({"a": tensor(key="7")}), "not those that its tensors name"),
    "another count": (legacy(GOOD, count=7), "not there with its 6 values"),
    "a web page": (b"<!DOCTYPE html><html>", "begins with b'<!DOCTYPE ht"),
    "empty": (b"", "begins with b''"),
    "long header": (safetensors({"a": ENTRY})[:40], "header ends at byte"),
    "other end": (safetensors({"a": ENTRY | {"data_offsets": [0, 28]}}), "size .6,. is not at"),
    "behind the end": (safetensors({"a": ENTRY | {"data_offsets": [4, 28]}}), "is not at bytes 4"),
    "shape": (safetensors({"a": ENTRY | {"shape": [10**9]}}), "is not at bytes 0 to 24"),
    "type": (safetensors({"a": ENTRY | {"dtype": "F8_E4M3"}}), "of the type F8_E4M3"),
    "nested header": (safetensors('{"a":' * 100_000), "is not a whole"),
    "no header": (safetensors("{}}"), "is not a whole"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_refused(tmp_path: Path, name: str) -> None:
    data, words = FILES[name]
    with pytest.raises(UserError, match=words):
        read(tmp_path, data)


@pytest.mark.parametrize("path", ["missing.pth", "."])
def test_what_is_no_file_is_named(tmp_path: Path, path: str) -> None:
    with pytest.raises(UserError, match=r"file of weights .* cannot be read: it "):
        read_tensors(tmp_path / path)


def test_a_file_larger_than_the_limit_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "large.pth").open("wb") as file:
        file.truncate(5 << 30)  # a hole, which takes no place on the disk
    with pytest.raises(UserError, match="larger than 4 GiB"):
        read_tensors(tmp_path / "large.pth")


@pytest.mark.parametrize(
    "data",
    [zipped(GOOD), legacy(GOOD), safetensors({"a": ENTRY})],
    ids=["zip", "legacy", "safetensors"],
)
def test_cut_and_changed_files_are_read_or_refused(tmp_path: Path, data: bytes) -> None:
    for end in range(0, len(data), 17):
        with pytest.raises(UserError):
            read(tmp_path, data[:end])
    random = np.random.default_rng(1)
    for _ in range(100):
        changed = bytearray(data)
        for place in random.integers(0, len(data), 2):
            changed[place] = random.integers(0, 256)
        try:
            tensors = read(tmp_path, bytes(changed))
        except UserError:
            continue
        assert all(values.nbytes <= len(data) for values in tensors.values())
