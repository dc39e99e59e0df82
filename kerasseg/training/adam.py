"""Adam whose bias correction counts the updates of each variable."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


class Adam(keras.optimizers.Optimizer):
    """Adam (Kingma and Ba 2015, arXiv:1412.6980).

    Keras's corrects the bias of all moments by the number of updates of the run. Variables that
    are released later, as a frozen encoder's are, would get none, and so take steps of up to six
    times the learning rate for their first hundred updates. For all others the two are the same.
    """

    def __init__(
        self, *, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7, **arguments: Any
    ) -> None:
        super().__init__(**arguments)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self.means, self.squares, self.updates = [], [], []
        for variable in variables:
            self.means.append(self.add_variable_from_reference(variable, "mean"))
            by_adam = self.takes(variable)
            self.squares.append(
                self.add_variable_from_reference(variable, "square") if by_adam else None
            )
            self.updates.append(self.add_variable((), name="updates") if by_adam else None)

    def takes(self, variable: keras.Variable) -> bool:
        """Whether a variable is updated by Adam."""
        return True

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        mean, square, updates = self.means[index], self.squares[index], self.updates[index]
        rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        self.assign_add(updates, 1.0)
        done = ops.cast(updates, variable.dtype)
        self.assign_add(mean, ops.multiply(ops.subtract(gradient, mean), 1.0 - self.beta_1))
        self.assign_add(
            square, ops.multiply(ops.subtract(ops.square(gradient), square), 1.0 - self.beta_2)
        )
        rate *= ops.sqrt(1.0 - ops.power(self.beta_2, done))
        rate /= 1.0 - ops.power(self.beta_1, done)
        self.assign_sub(
            variable, ops.divide(ops.multiply(mean, rate), ops.sqrt(square) + self.epsilon)
        )
