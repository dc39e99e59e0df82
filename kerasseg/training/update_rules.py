"""What every optimiser here does around its own update of a variable."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


class UpdateRules(keras.optimizers.Optimizer):
    """Mixed into a Keras optimiser: `class AdamW(UpdateRules, Adam)`.

    weight_decay:     decoupled (Loshchilov and Hutter 2019, arXiv:1711.05101): a kernel loses
                      rate * weight_decay of itself before its update. Variables of one axis,
                      which are the biases and the gamma and beta of every norm, do not decay
    encoder:          variables whose rate, and so whose decay, is `encoder_factor` of the others'
    average_momentum: of an exponential moving average of the weights; None for none. It counts
                      updates, not batches, and rises as (1 + t) / (10 + t) at the start, so that
                      the random weights of the beginning are soon forgotten

    Keras's own `weight_decay` knows one rate for all variables, and its `use_ema` averages on each
    replica. Gradients come averaged over batches and replicas, and clipped, from `update.py`.
    Variables without a gradient (of frozen layers) are left alone by all of this.
    """

    def __init__(
        self,
        *,
        weight_decay: float = 0.0,
        encoder: Sequence[keras.Variable] = (),
        encoder_factor: float = 1.0,
        average_momentum: float | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.decoupled_decay = weight_decay
        self.encoder_factor = encoder_factor
        self.average_momentum = average_momentum
        # Not the variables themselves, which Keras would take for the optimiser's own.
        self._encoder_ids = frozenset(id(variable) for variable in encoder)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self._rate_factors = tuple(
            self.encoder_factor if id(variable) in self._encoder_ids else 1.0
            for variable in variables
        )
        self.averages: list[keras.Variable] = []
        if self.average_momentum is not None:
            self.averages = self.add_optimizer_variables(variables, "weight_average")
            for average, variable in zip(self.averages, variables, strict=True):
                average.assign(variable)

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        return grads_and_vars  # they are the sum over the replicas already

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        rate = ops.cast(learning_rate, variable.dtype) * self._rate_factors[index]
        if self.decoupled_decay and len(variable.shape) > 1:
            self.assign_sub(variable, ops.multiply(variable, rate * self.decoupled_decay))
        super().update_step(gradient, variable, rate)
        if self.averages:
            average, done = self.averages[index], ops.cast(self.iterations, variable.dtype)
            momentum = ops.minimum((1.0 + done) / (10.0 + done), self.average_momentum)
            moved = ops.multiply(ops.subtract(variable, average), 1.0 - momentum)
            self.assign_add(average, moved)
