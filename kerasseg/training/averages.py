"""Weights and their exponential moving averages."""

import keras
from keras import ops

from kerasseg.training.update_rules import UpdateRules


def swap_averages(model: keras.Model) -> None:
    """Exchange the trained weights of `model` with the averages that its optimiser keeps, in place.

    Moving statistics of batch normalisation have no average of this kind (they are averages
    already) and stay.
    """
    # Under mixed_float16 Keras wraps the optimiser in one that scales the loss.
    optimizer: UpdateRules = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    for variable, average in zip(model.trainable_variables, optimizer.averages, strict=True):
        value = ops.convert_to_numpy(variable)
        variable.assign(average)
        average.assign(value)
