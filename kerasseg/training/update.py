"""One update of the weights on all devices: the heart of the training."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from kerasseg.losses.overlap import batch_over_replicas

if TYPE_CHECKING:
    from kerasseg.training.training_model import TrainingModel

Logs = dict[str, Any]
Step = Callable[[Iterator[Any]], Logs]

FINITE, LOSS_NOT_FINITE, GRADIENT_NOT_FINITE = 0, 1, 2
"""What `TrainingModel.failure` tells of the last update."""


def make_update(model: "TrainingModel") -> Step:
    """A function that takes `model.accumulation` batches from an iterator and updates once.

    Its order is what makes it right on any number of devices:

    1. every replica adds up the gradients of its parts of the batches;
    2. the sums of all replicas are added, and the loss scale is taken out;
    3. only then is decided whether they are finite, and only then are they clipped;
    4. either every replica steps, or none does and the loss scale is halved.

    An update that is not made leaves weights, optimiser and moving statistics as they were. The
    logs are the first replica's metrics of the epoch so far.
    """
    strategy, loss_scale = model.distribute_strategy, model.loss_scale
    variables, statistics = model.trainable_variables, model.moving_statistics
    replicas = strategy.num_replicas_in_sync

    def next_batch(iterator: Any) -> Any:
        batch = iterator.get_next()
        return batch if model.augmentation is None else strategy.run(model.augmentation, batch)

    def gradients_of(image: Any, masks: Any) -> list[Any]:
        """Of one replica's part of a batch; behind them its loss."""
        with tf.GradientTape() as tape, batch_over_replicas(_sum_over(replicas)):
            logits = model(image, training=True)
            # Keras has divided it by the replicas, so that their sum is the mean.
            loss = model.compute_loss(y=masks, y_pred=logits)
            scaled = loss * (loss_scale.scale / model.accumulation)
        model.note(loss * replicas, masks, logits)
        zero = tf.UnconnectedGradients.ZERO
        return [*tape.gradient(scaled, variables, unconnected_gradients=zero), loss]

    def reduced(totals: list[Any]) -> tuple[list[Any], Any, Any]:
        """The gradients of all replicas together, clipped; their norm before that; the loss."""
        unscaled = [total / loss_scale.scale for total in totals[:-1]]
        *gradients, loss = _all_reduce("SUM", [*unscaled, totals[-1] / model.accumulation])
        norm = tf.linalg.global_norm(gradients)
        if model.clip_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, model.clip_norm, norm)
        return gradients, norm, loss

    def step(gradients: list[Any]) -> None:
        model.optimizer.apply(gradients, variables)
        if replicas > 1 and statistics:
            _assign(statistics, _all_reduce("MEAN", [v * 1.0 for v in statistics]))

    def copied() -> list[Any]:
        return [tf.identity(v) for v in statistics]

    if model.compiled_by_xla:
        gradients_of = tf.function(gradients_of, jit_compile=True, autograph=False)

    @tf.function(reduce_retracing=True)
    @tf.autograph.experimental.do_not_convert
    def update(iterator: Any) -> Logs:
        before = strategy.run(copied)
        totals = strategy.run(gradients_of, next_batch(iterator))

        def more(count: Any, totals: Any) -> tuple[Any, Any]:
            # Else the first two batches would run side by side, their activations both in memory.
            done = [x for total in totals for x in strategy.experimental_local_results(total)]
            with tf.control_dependencies(done):
                batch = next_batch(iterator)
            others = strategy.run(gradients_of, batch)
            return count + 1, strategy.run(_sums, (totals, others))

        if model.accumulation > 1:
            _, totals = tf.while_loop(
                lambda count, _: count < model.accumulation,
                more,
                (tf.constant(1), totals),
                parallel_iterations=1,  # for the same reason
            )
        gradients, norm, loss = strategy.run(reduced, (totals,))
        gradients_are_finite = tf.math.is_finite(_first(strategy, norm))
        loss_is_finite = tf.math.is_finite(_first(strategy, loss))

        def make() -> Any:
            strategy.run(step, (gradients,))
            loss_scale.grow()
            return tf.constant(FINITE)

        def leave_out() -> Any:
            strategy.run(_assign, (statistics, before))
            mended = loss_scale.shrink()
            failure = tf.where(mended, FINITE, GRADIENT_NOT_FINITE)
            return tf.where(loss_is_finite, failure, LOSS_NOT_FINITE)

        model.failure.assign(tf.cond(gradients_are_finite & loss_is_finite, make, leave_out))
        return _first(strategy, strategy.run(model.get_metrics_result))

    return _taking_batches(model, update)


def make_validation(model: "TrainingModel") -> Step:
    """A function that takes a batch from an iterator and adds it to the metrics.

    A batch is image, masks and weight (B,): samples of weight 0, which fill up the last batch so
    that the replicas can share it, stand at its end and do not count.
    """
    strategy = model.distribute_strategy
    replicas = strategy.num_replicas_in_sync

    def validate(image: Any, masks: Any, weight: Any = None) -> None:
        logits = model(image, training=False)
        if weight is not None:
            count = tf.math.count_nonzero(weight, dtype=tf.int32)
            masks, logits = tf.nest.map_structure(lambda part: part[:count], (masks, logits))
        with batch_over_replicas(_sum_over(replicas)):
            loss = model.compute_loss(y=masks, y_pred=logits, training=False)
        # A replica whose part has no sample at all has no loss of its own.
        loss = tf.where(tf.shape(masks)[0] > 0, loss, 0.0)
        model.note(loss * replicas, masks, logits)

    @tf.function(reduce_retracing=True)
    @tf.autograph.experimental.do_not_convert
    def validation(iterator: Any) -> Logs:
        strategy.run(validate, iterator.get_next())
        return _first(strategy, strategy.run(model.get_metrics_result))

    return _taking_batches(model, validation)


def _sum_over(replicas: int) -> Callable[[Any], Any] | None:
    if replicas == 1:
        return None
    return lambda value: _all_reduce("SUM", value)


def _all_reduce(how: str, values: Any) -> Any:
    operation = getattr(tf.distribute.ReduceOp, how)
    return tf.distribute.get_replica_context().all_reduce(operation, values)


def _sums(totals: list[Any], others: list[Any]) -> list[Any]:
    return [total + other for total, other in zip(totals, others, strict=True)]


def _assign(variables: list[Any], values: list[Any]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _first(strategy: tf.distribute.Strategy, values: Any) -> Any:
    """What the first local replica has."""
    return tf.nest.map_structure(lambda v: strategy.experimental_local_results(v)[0], values)


def _taking_batches(model: "TrainingModel", step: Any) -> Step:
    """`step` that takes, besides iterators of datasets, the single batch of Keras's
    `train_on_batch` and `test_on_batch`."""

    def take(iterator: Any) -> Logs:
        if not isinstance(iterator, tf.data.Iterator | tf.distribute.DistributedIterator):
            batch = tuple(part for part in next(iterator) if part is not None)
            dataset = tf.data.Dataset.from_tensors(batch).repeat(model.accumulation)
            iterator = iter(model.distribute_strategy.experimental_distribute_dataset(dataset))
        return dict(step(iterator))

    return take
