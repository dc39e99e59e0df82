"""TensorProto without TensorFlow, against TensorFlow's own."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from kerasseg.serving.protocol import from_proto, to_proto

DTYPES = ("f4", "f8", "f2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_both_ways(dtype):
    array = (np.arange(24).reshape(2, 3, 4) % 2).astype(dtype)
    assert np.array_equal(tf.make_ndarray(to_proto(array)), array)
    mine = from_proto(tf.make_tensor_proto(array))
    assert mine.dtype == array.dtype and np.array_equal(mine, array)
    repeated = from_proto(tf.make_tensor_proto(array.flat[1], shape=(2, 5)))
    assert np.array_equal(repeated, np.full((2, 5), array.flat[1]))


def test_values_in_fields_as_other_languages_send_them():
    message = tf.make_tensor_proto(np.zeros((0,), np.float16))
    message.tensor_shape.dim[0].size = 4
    message.half_val.extend(np.array([1.5, -2], np.float16).view(np.uint16).tolist())
    assert np.array_equal(from_proto(message), tf.make_ndarray(message))
    assert from_proto(message).tolist() == [1.5, -2, -2, -2]
    big_endian = np.arange(5, dtype=">f4")
    assert np.array_equal(tf.make_ndarray(to_proto(big_endian)), np.arange(5))


def test_strings_both_ways():
    assert tf.make_ndarray(to_proto(b"a\x00\xff")).item() == b"a\x00\xff"
    assert tf.make_ndarray(to_proto("ä")).item() == "ä".encode()
    assert from_proto(tf.make_tensor_proto([[b"a\x00", b""]])).tolist() == [[b"a\x00", b""]]


def test_what_a_shape_claims_is_not_believed():
    small = tf.make_tensor_proto([1.0])
    claims = tensor_pb2.TensorProto.FromString(small.SerializeToString())
    claims.tensor_shape.dim[0].size = 10**15
    with pytest.raises(OverflowError, match="claims"):
        from_proto(claims, 2**20)
    claims.tensor_shape.dim[0].size = -1
    with pytest.raises(ValueError, match="impossible shape"):
        from_proto(claims)
    cut = to_proto(np.arange(6, dtype=np.int32))
    cut.tensor_content = cut.tensor_content[:-1]
    with pytest.raises(ValueError, match=r"23 bytes.*claims 24"):
        from_proto(cut)
    strings = to_proto(b"a")
    strings.tensor_shape.dim.add(size=10**12)
    with pytest.raises(ValueError, match="1 strings"):
        from_proto(strings)
    with pytest.raises(ValueError, match="not served"):
        from_proto(tf.make_tensor_proto(np.complex64(1)))


def test_the_stubs_come_without_tensorflow_which_works_afterwards():
    code = (
        "import sys\nfrom kerasseg.serving.protocol import serving_apis\nserving_apis()\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules\n"
        "import kerasseg.serving.client\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules\n"
        "assert 'matplotlib' not in sys.modules\n"
        "import tensorflow as tf\nassert int(tf.constant(1) + 1) == 2\n"
        "tf.make_tensor_proto([1.0])\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


def test_a_missing_extra_has_a_sentence():
    code = (
        "import sys\nsys.modules['grpc'] = None\nfrom kerasseg.cli.main import main\n"
        "sys.argv = ['kerasseg', 'segment', '--server', 'h:1', 'scan', '-o', 'out']\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 2 and "pip install 'kerasseg[serving]'" in done.stderr
    assert done.stderr.count("\n") == 1
