"""Muon for the kernels of convolutions."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kerasseg.training.adam import Adam

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of Jordan's quintic: steep at 0, singular values end between 0.7 and 1.2."""
_STEPS = 5
_RMS = 0.2
"""Root mean square of an update at learning rate 1, as of Adam's (Liu et al. 2025)."""


class Muon(Adam):
    """Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) for kernels, Adam for the rest.

    Keras's Muon gives all but matrices to Adam, which of a U-Net is everything. Here, as in
    Jordan's, the kernel of a convolution (*window, a, b) is a matrix of window * a rows and b
    columns. Adam updates biases and norms, the kernels of `heads`, and kernels that are no more
    than a vector (depthwise ones, those of a single channel). Updates are scaled by
    0.2 sqrt(max(rows, columns)) (Liu et al. 2025, arXiv:2502.16982), so that the learning rates
    and decays of AdamW fit.
    """

    def __init__(
        self,
        *,
        momentum: float = 0.95,
        nesterov: bool = True,
        heads: Sequence[keras.Variable] = (),
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.momentum = momentum
        self.nesterov = nesterov
        self._head_ids = frozenset(id(variable) for variable in heads)

    def takes(self, variable: keras.Variable) -> bool:
        if len(variable.shape) < 2 or id(variable) in self._head_ids:
            return True
        return min(math.prod(variable.shape[:-1]), variable.shape[-1]) < 2

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        if self.squares[index] is not None:
            super().update_step(gradient, variable, learning_rate)
            return
        mean = self.means[index]
        gradient = ops.cast(gradient, variable.dtype)
        self.assign(mean, ops.add(ops.multiply(mean, self.momentum), gradient))
        ahead = ops.convert_to_tensor(mean)
        if self.nesterov:
            ahead = gradient + self.momentum * ahead
        matrix = ops.reshape(ahead, (-1, variable.shape[-1]))
        rate = ops.cast(learning_rate, variable.dtype) * _RMS * math.sqrt(max(matrix.shape))
        self.assign_sub(variable, ops.reshape(rate * orthogonal(matrix), variable.shape))


def orthogonal(matrix: Any) -> Any:
    """About U V^T of a matrix U S V^T (rows, columns), by Newton-Schulz iterations.

    Its singular values are near 1, whatever those of `matrix` are.
    """
    a, b, c = _NEWTON_SCHULZ
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else ops.transpose(matrix)
    x = x / (ops.sqrt(ops.sum(ops.square(x))) + 1e-7)
    for _ in range(_STEPS):
        gram = x @ ops.transpose(x)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else ops.transpose(x)
