"""Dropout that differs from replica to replica.

Dynamic loss scaling, decided on the gradients of all devices together.

One update of the weights on all devices: the heart of the training.

The network as it is trained: logits, extra heads, loss and metrics.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kerasseg import anatomy
from kerasseg.losses.segmentation_loss import batch_over_replicas
from kerasseg.metrics.segmentation import SegmentationMetrics
from kerasseg.models.float32_twin import float32_twin
from kerasseg.models.unet import supervision_logits

_INITIAL = 2.0**15
_LARGEST = 2.0**24
"""A gradient of zeros would let the scale grow until it overflows itself."""
_GROWTH_UPDATES = 2000


class LossScale:
    """The factor that keeps float16 gradients above their smallest number.

    Micikevicius et al. 2018 (arXiv:1710.03740): doubled after 2000 updates without an overflow,
    halved after an update whose gradient overflowed, which is skipped. Keras's
    `LossScaleOptimizer` looks at the first device's gradients only, before they are summed.

    dynamic: without it the scale is 1 and stays so, as float32 and bfloat16 need none

    To be made under the strategy's scope. `skipped` counts the updates without a step.
    """

    def __init__(self, dynamic: bool) -> None:
        self.dynamic = dynamic
        self.scale = _variable(_INITIAL if dynamic else 1.0, tf.float32, "loss_scale")
        self.since_overflow = _variable(0, tf.int64, "updates_since_overflow")
        self.skipped = _variable(0, tf.int64, "skipped_updates")

    @property
    def variables(self) -> list[tf.Variable]:
        """What a run must keep to go on."""
        return [self.scale, self.since_overflow, self.skipped]

    def grow(self) -> None:
        """After an update, across the replicas."""
        if not self.dynamic:
            return
        since = self.since_overflow + 1
        due = since >= _GROWTH_UPDATES
        doubled = tf.minimum(self.scale * 2.0, _LARGEST)
        self.scale.assign(tf.where(due, doubled, self.scale))
        self.since_overflow.assign(tf.where(due, tf.zeros_like(since), since))

    def shrink(self) -> Any:
        """After an update that was skipped, across the replicas. False if nothing was left to
        take off, so that the next one would overflow as well."""
        self.skipped.assign_add(1)
        if not self.dynamic:
            return tf.constant(False)
        could = self.scale > 1.0
        self.scale.assign(tf.maximum(self.scale / 2.0, 1.0))
        self.since_overflow.assign(0)
        return could


def _variable(value: float, dtype: tf.DType, name: str) -> Any:
    return tf.Variable(
        value,
        trainable=False,
        dtype=dtype,
        name=name,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )


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


class TrainingModel(keras.Model):
    """A twin of `network` that shares its weights and has `supervision` further heads.

    Called on an image (B, *spatial, C) it gives the logits of `network` (B, *spatial, K); with
    heads a list of them and of those at 1/2, 1/4, … of the resolution. `loss` is called as
    loss(masks, logits). In training the loss is the mean of all heads' with weights 2^-i, against
    every 2^i-th voxel of the masks; `val_loss` is that of the network's own output, which alone is
    saved. The network itself stays uncompiled, so that its checkpoint needs no code of ours.

    Metrics are those of `SegmentationMetrics`, of the network's own output, flat in the logs.

    accumulation: batches whose gradients are averaged before one update
    clip_norm:    largest global norm of that gradient; None for no limit
    augmentation: (image, masks, seeds) -> image, masks, if batches have seeds (pipeline.augment_on)

    A step of it, in Keras's `fit` or in `loop.py`, is an update (`update.py`). To be made under the
    scope of the strategy that it is to be trained with; its precision is that of Keras's global
    dtype policy.
    """

    def __init__(
        self,
        network: keras.Model,
        target: str,
        loss: keras.losses.Loss,
        supervision: int = 0,
        accumulation: int = 1,
        clip_norm: float | None = None,
        augmentation: Callable[..., tuple[Any, Any]] | None = None,
    ) -> None:
        self.train_function: Any  # a step, or None before it is made
        self.test_function: Any
        channels, activation = tuple(anatomy.TARGETS[target]), anatomy.ACTIVATIONS[target]
        heads = supervision_logits(network, supervision, len(channels))
        super().__init__(
            network.input, [network.get_layer("logits").output, *heads], name=network.name
        )
        self._network: Callable[[], keras.Model] = lambda: network  # Keras tracks plain attributes
        self.loss_of_masks = loss
        self.activation = keras.activations.get(activation)
        self.segmentation = SegmentationMetrics(channels, softmax=activation == "softmax")
        total = sum(2.0**-level for level in range(supervision + 1))
        self.head_weights = tuple(2.0**-level / total for level in range(supervision + 1))
        self.accumulation = accumulation
        self.clip_norm = clip_norm
        self.augmentation = augmentation
        self.moving_statistics = [
            v.value for v in self.non_trainable_variables if v.dtype == "float32"
        ]
        """Of batch normalisation; made one over all replicas with each update."""
        self.loss_scale = LossScale(keras.config.dtype_policy().compute_dtype == "float16")
        self.failure = tf.Variable(
            0, trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
        )
        """Why the last update was not made, by the numbers in `update.py`."""
        self._results_of_all = tf.function(self.get_metrics_result, autograph=False)

    @property
    def compiled_by_xla(self) -> bool:
        """Whether a batch's gradients are computed by XLA."""
        return bool(self.jit_compile) and self.distribute_strategy.num_replicas_in_sync == 1

    def make_train_function(self, force: bool = False) -> None:
        if force or not self.train_function:
            self.train_function = make_update(self)

    def make_test_function(self, force: bool = False) -> None:
        if force or not self.test_function:
            self.test_function = make_validation(self)

    def note(self, loss: Any, masks: Any, logits: Any) -> None:
        """Add a batch to the metrics."""
        self._loss_tracker.update_state(loss, sample_weight=tf.shape(masks)[0])
        self.segmentation.update_state(masks, self.activation(_as_list(logits)[0]))

    def results(self) -> dict[str, float]:
        """The metrics since their reset, over all replicas."""
        with self.distribute_strategy.scope():
            values = self._results_of_all()
        return {name: float(value) for name, value in values.items()}

    def save(self, filepath: str | Path, *arguments: Any, **options: Any) -> None:
        """Save the network, which any Keras reads, for callbacks such as `ModelCheckpoint`."""
        float32_twin(self._network()).save(filepath, *arguments, **options)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        heads = _as_list(y_pred)
        if not training:
            return self.loss_of_masks(y, heads[0])
        total = 0.0
        for level, (weight, logits) in enumerate(zip(self.head_weights, heads, strict=True)):
            every = (slice(None), *[slice(None, None, 2**level)] * (len(logits.shape) - 2))
            total += weight * self.loss_of_masks(y[every], logits)
        return total

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        self.segmentation.update_state(y, self.activation(_as_list(y_pred)[0]))
        return self.get_metrics_result()


def _as_list(y_pred: Any) -> list[Any]:
    """All logits: Keras takes a single one out of its list."""
    return list(y_pred) if isinstance(y_pred, list | tuple) else [y_pred]


_ODD = 0x9E3779B9
"""2^32 / golden ratio: seeds of neighbouring replicas share no bits."""


def vary_dropout(model: TrainingModel) -> None:
    """Give each replica a seed of its own.

    The states of Keras's seed generators are copied to all replicas, which would then drop the
    same places everywhere. The first replica's, which alone is saved, stays as it is.
    """
    strategy = model.distribute_strategy
    states = [
        v.value for v in model.non_trainable_variables if v.path.endswith("seed_generator_state")
    ]
    if strategy.num_replicas_in_sync == 1 or not states:
        return

    def vary() -> None:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        for state in states:
            shift = tf.cast(replica, state.dtype) * tf.constant(_ODD, state.dtype)
            state.assign(tf.stack([state[0] + shift, state[1]]))

    strategy.run(tf.function(vary, autograph=False))
