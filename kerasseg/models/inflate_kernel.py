"""A kernel of a 2-D network, for the same layer of a 3-D one."""

import numpy as np


def inflate_kernel(kernel: np.ndarray, depth: int, *, taps: float) -> np.ndarray:
    """Kernel (h, w, a, b) -> (depth, h, w, a, b), repeated along depth and divided by `taps`.

    `taps` is how many of the `depth` weights along depth meet in one output voxel: all of them in
    a convolution, depth / stride in a transposed one. A volume that is the same in every slice
    then gives, away from its first and last slices, what the 2-D layer gives of one slice
    (Carreira and Zisserman 2017, arXiv:1705.07750).
    """
    return np.repeat(kernel[None], depth, axis=0) / np.asarray(taps, kernel.dtype)
