"""The smallest bytes that are exact."""

import gzip

import numpy as np
import pytest

from kerasseg.serving.client import pack_volume

SHAPE = (2, 3, 4, 5)
WHOLE = np.arange(120, dtype=np.float32).reshape(SHAPE)


@pytest.mark.parametrize(
    ("image", "dtype"),
    [
        (WHOLE - 60, "int16"),
        (np.where(WHOLE == 7, 32767, -32768).astype(np.float32), "int16"),
        (WHOLE / 8, "float16"),
        (np.where(WHOLE == 7, 40000, WHOLE).astype(np.float32), "float16"),
        (np.where(WHOLE == 7, 32769, WHOLE).astype(np.float32), "float32"),
        (WHOLE / 3, "float32"),
        (np.where(WHOLE == 7, 1e30, WHOLE).astype(np.float32), "float32"),
    ],
)
def test_exact_and_no_larger_than_needed(image, dtype):
    for compress in (False, True):
        packed = pack_volume(image, compress=compress)
        assert (packed.dtype, packed.shape) == (dtype, SHAPE)
        assert packed.compression == ("gzip" if compress else "")
        data = gzip.decompress(packed.data) if compress else packed.data
        values = np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(SHAPE)
        assert np.array_equal(values.astype(np.float32), image)
