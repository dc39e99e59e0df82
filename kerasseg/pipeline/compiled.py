"""Functions over whole patches, compiled by XLA."""

from collections.abc import Callable
from typing import TypeVar

import tensorflow as tf

Function = TypeVar("Function", bound=Callable)


def compiled(function: Function) -> Function:
    """One fused loop in place of an array per operation: several times as fast on a CPU
    (benchmarks/notes.md), and compiled once for all data sets of a process.

    Tensors must have the same shapes each time; other arguments must be hashable and are compiled
    in. Random numbers are drawn outside: XLA would draw a scalar anew for every voxel.
    """
    return tf.function(function, jit_compile=True, autograph=False)
