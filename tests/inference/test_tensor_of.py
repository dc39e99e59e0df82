import numpy as np
import pytest
import tensorflow as tf

from kerasseg.inference.windows import tensor_of


@pytest.mark.parametrize("shape", [(1, 3, 5, 7, 2), (2, 33, 17, 1)])
@pytest.mark.parametrize("view", ["whole", "reversed", "transposed", "part"])
def test_the_tensor_holds_the_values_of_any_view(shape, view):
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    array = {
        "whole": array,
        "reversed": array[:, ::-1],
        "transposed": np.moveaxis(array, 1, 2),
        "part": array[:, 1:],
    }[view]
    expected = array.copy()
    tensor = tensor_of(array)
    array[...] = 0
    np.testing.assert_array_equal(tensor.numpy(), expected)
    # Kernels that need aligned memory end the process where it is not.
    np.testing.assert_allclose(tf.reduce_sum(tensor), expected.sum(), rtol=1e-4)


def test_the_memory_is_aligned_and_outlives_the_array():
    tensors = [tensor_of(np.full((n, 3), n, np.float32)) for n in range(1, 40)]
    for n, tensor in enumerate(tensors, start=1):
        assert np.asarray(tensor).ctypes.data % 64 == 0
        assert (tensor.numpy() == n).all()
