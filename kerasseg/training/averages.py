"""Weights and their exponential moving averages."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras
from keras import ops

from kerasseg.training.update_rules import UpdateRules


@contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Within it `model` has the averages that its optimiser keeps, if it keeps any."""
    optimizer: UpdateRules = model.optimizer
    if not optimizer.averages:
        yield
        return
    swap_averages(model)
    try:
        yield
    finally:
        swap_averages(model)


def swap_averages(model: keras.Model) -> None:
    """Exchange the trained weights of `model` with the averages that its optimiser keeps, in place.

    Moving statistics of batch normalisation have no average of this kind (they are averages
    already) and stay.
    """
    optimizer: UpdateRules = model.optimizer
    for variable, average in zip(model.trainable_variables, optimizer.averages, strict=True):
        value = ops.convert_to_numpy(variable)
        variable.assign(average)
        average.assign(value)
