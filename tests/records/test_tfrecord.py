import io

import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from kerasseg.errors import UserError
from kerasseg.records.tfrecord import read_record, write_record


def test_tensorflow_reads_what_we_write_and_we_read_what_it_writes(tmp_path):
    payloads = [b"", b"a", bytes(range(256)) * 40]
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    offsets = []
    with ours.open("wb") as file:
        for payload in payloads:
            offsets.append(file.tell())
            write_record(file, payload)
    assert [r.numpy() for r in tf.data.TFRecordDataset(str(ours))] == payloads
    with tf.io.TFRecordWriter(str(theirs)) as writer:
        for payload in payloads:
            writer.write(payload)
    assert ours.read_bytes() == theirs.read_bytes()
    assert [read_record(theirs, o, "case") for o in offsets] == payloads


@given(st.binary(min_size=1, max_size=80), st.data())
def test_any_flipped_bit_and_any_cut_is_noticed(tmp_path_factory, payload, data):
    file = io.BytesIO()
    write_record(file, payload)
    whole = bytearray(file.getvalue())
    path = tmp_path_factory.mktemp("records") / "r"
    if data.draw(st.booleans()):
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    else:
        whole = whole[: data.draw(st.integers(0, len(whole) - 1))]
    path.write_bytes(whole)
    with pytest.raises(UserError, match=r"record of case case_7 at byte 0 is damaged"):
        read_record(path, 0, "case_7")
