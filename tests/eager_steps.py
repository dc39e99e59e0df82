"""Training steps that are made operation by operation, as most tests train for a dozen steps only.

Tracing a step and the one of validation takes four to eight seconds, as long as a hundred steps.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from kerasseg.training.step import TrainingModel

traced = False
"""Set by tests of steps as users have them, which are graphs."""


def do_not_trace_steps() -> None:
    """Have each `TrainingModel` make its steps eagerly on one device, unless XLA compiles them."""
    accept, results = TrainingModel._accept_single_batches, TrainingModel.results

    def alone(model: TrainingModel) -> bool:
        return model.distribute_strategy.num_replicas_in_sync == 1 and not model.compiled_by_xla

    def accept_eager_step(model: TrainingModel, step: Any) -> Any:
        return accept(model, _eager(step) if alone(model) and not traced else step)

    def eager_results(model: TrainingModel) -> dict[str, float]:
        return (_eager(results) if alone(model) and not traced else results)(model)

    TrainingModel._accept_single_batches = accept_eager_step
    TrainingModel.results = eager_results


def iterate_datasets_as_built() -> None:
    """Have `tf.data` neither rewrite nor tune a dataset, which takes half of starting to iterate.

    Training iterates over the validation batches anew in each epoch.
    """
    options, iterate = tf.data.Options(), tf.data.Dataset.__iter__
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False

    def iterate_as_built(dataset: tf.data.Dataset) -> Any:
        return iterate(dataset if traced else dataset.with_options(options))

    tf.data.Dataset.__iter__ = iterate_as_built


class EagerSteps(keras.callbacks.Callback):
    """Named in `training.callbacks`, it has the process of a trial make its steps eagerly."""

    def __init__(self) -> None:
        super().__init__()
        do_not_trace_steps()
        iterate_datasets_as_built()


def _eager(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        before = tf.config.functions_run_eagerly()
        tf.config.run_functions_eagerly(True)
        try:
            return function(*arguments)
        finally:
            tf.config.run_functions_eagerly(before)

    return run
