"""The network as it is trained: extra heads, loss, metrics, and one update of the weights.

The update is right on any number of devices, in every precision and with accumulated gradients.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kerasseg import anatomy
from kerasseg.losses.functional import batch_over_replicas
from kerasseg.metrics.segmentation import SegmentationMetrics
from kerasseg.models.build import float32_twin
from kerasseg.models.unet import supervision_logits
from kerasseg.private_hooks import loss_tracker

Logs = dict[str, Any]
Step = Callable[[Iterator[Any]], Logs]

FINITE, LOSS_NOT_FINITE, GRADIENT_NOT_FINITE = 0, 1, 2
"""Values of `TrainingModel.failure`."""


class TrainingModel(keras.Model):
    """A model that shares the weights of a network and trains them.

    Called on images (B, D, H, W, C) or (B, H, W, C), or on what `network_inputs` makes of them for
    a prompt, it returns the network's logits with K channels; with extra heads a list of them and
    of the heads' logits at 1/2, 1/4, … of the resolution. The training loss is the mean of all
    heads' losses with weights 2^-i, each against every 2^i-th voxel of the masks. `val_loss` and
    the metrics, those of `SegmentationMetrics`, are of the network's own output alone, which alone
    is saved. The network itself stays uncompiled, so that its checkpoint needs no code of ours.

    A step, in Keras's `fit` or in `fit.run_epochs`, is an update. The model must be made under the
    scope of the strategy that it is trained with; its precision is that of Keras's global policy.

    Args:
        network: The network, whose layer `logits` gives what the loss is computed on.
        target: A row of `anatomy.TARGETS`.
        loss: Called as loss(masks, logits); returns one float32 number.
        supervision: The number of extra heads.
        accumulation: Batches whose gradients are averaged before one update.
        clip_norm: Largest global norm of that gradient; None for no limit.
        augmentation: Called as augmentation(image, masks, seeds) on each batch; returns image and
            masks. None where batches come augmented.
        keep_gradients: Keep the gradients of the last update.
        saved: The whole network that `save` writes, where `network` is a part of it.
        iou_weight: Weight of the error of the IoU that a SAM expects of its masks (its layer
            `masks`), which is then added to the training loss; 0 for other networks.

    Attributes:
        failure: Why the last update was not made: FINITE, LOSS_NOT_FINITE or GRADIENT_NOT_FINITE.
        kept_gradients: The gradient of each trained variable in the last update, by its path, if
            they are kept; 0 before its first.
        loss_scale: The factor that keeps float16 gradients from vanishing.
        moving_statistics: Of batch normalisation; each update makes them one over all replicas.
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
        *,
        keep_gradients: bool = False,
        saved: keras.Model | None = None,
        iou_weight: float = 0.0,
    ) -> None:
        self.train_function: Any  # a step, or None before it is made
        self.test_function: Any
        channels, activation = tuple(anatomy.TARGETS[target]), anatomy.ACTIVATIONS[target]
        heads = supervision_logits(network, supervision, len(channels))
        if iou_weight:
            heads.append(network.get_layer("masks").output[1])
        super().__init__(
            network.input, [network.get_layer("logits").output, *heads], name=network.name
        )
        self.iou_weight = iou_weight
        self.loss_of_iou = keras.losses.MeanSquaredError(dtype="float32")
        whole = saved or network
        self._network: Callable[[], keras.Model] = lambda: whole  # Keras tracks plain attributes
        self.loss_of_masks = loss
        self.activation = keras.activations.get(activation)
        self.segmentation = SegmentationMetrics(channels, softmax=activation == "softmax")
        total = sum(2.0**-level for level in range(supervision + 1))
        self.head_weights = tuple(2.0**-level / total for level in range(supervision + 1))
        self.accumulation = accumulation
        self.clip_norm = clip_norm
        self.augmentation = augmentation
        self.moving_statistics = [
            v.value for v in self.non_trainable_variables if v.name.startswith("moving_")
        ]
        self.loss_scale = LossScale(keras.config.dtype_policy().compute_dtype == "float16")
        self.failure = _replicated_variable(0, tf.int32, "failure")
        self.kept_gradients = {
            v.path: _replicated_variable(tf.zeros(v.shape), tf.float32, "last_gradient")
            for v in (self.trainable_variables if keep_gradients else ())
        }
        self._results_of_all = tf.function(self.get_metrics_result, autograph=False)

    @property
    def compiled_by_xla(self) -> bool:
        """True if XLA computes a batch's gradients, which it cannot on several devices."""
        return bool(self.jit_compile) and self.distribute_strategy.num_replicas_in_sync == 1

    def make_train_function(self, force: bool = False) -> None:
        """Make the step that takes `accumulation` batches from an iterator and updates once.

        Its order is what makes it right on any number of devices:

        1. every replica adds up the gradients of its parts of the batches;
        2. the sums of all replicas are added, and the loss scale is taken out;
        3. only then it is decided whether they are finite, and only then they are clipped;
        4. either every replica steps, or none does and the loss scale is halved.

        An update that is not made leaves weights, optimiser and moving statistics as they were. The
        logs are the first replica's metrics of the epoch so far.
        """
        if self.train_function and not force:
            return
        strategy, accumulation = self.distribute_strategy, self.accumulation
        gradients_of: Any = self._gradients
        if self.compiled_by_xla:
            gradients_of = tf.function(gradients_of, jit_compile=True, autograph=False)

        def next_batch(iterator: Any) -> Any:
            batch = iterator.get_next()
            return batch if self.augmentation is None else strategy.run(self.augmentation, batch)

        @tf.function(reduce_retracing=True)
        @tf.autograph.experimental.do_not_convert
        def update(iterator: Any) -> Logs:
            before = strategy.run(lambda: [tf.identity(v) for v in self.moving_statistics])
            totals = strategy.run(gradients_of, next_batch(iterator))

            def add_batch(count: Any, totals: Any) -> tuple[Any, Any]:
                # Else the first two batches would run side by side, their activations both in
                # memory; parallel_iterations=1 is for the same reason.
                done = [x for total in totals for x in strategy.experimental_local_results(total)]
                with tf.control_dependencies(done):
                    batch = next_batch(iterator)
                others = strategy.run(gradients_of, batch)
                return count + 1, strategy.run(_add_pairwise, (totals, others))

            if accumulation > 1:
                _, totals = tf.while_loop(
                    lambda count, _: count < accumulation,
                    add_batch,
                    (tf.constant(1), totals),
                    parallel_iterations=1,
                )
            gradients, norm, loss = strategy.run(self._reduce, (totals,))
            if self.kept_gradients:
                kept = [self.kept_gradients[v.path] for v in self.trainable_variables]
                _assign(kept, _of_first_replica(strategy, gradients))
            gradients_are_finite = tf.math.is_finite(_of_first_replica(strategy, norm))
            loss_is_finite = tf.math.is_finite(_of_first_replica(strategy, loss))

            def make() -> Any:
                strategy.run(self._apply_gradients, (gradients,))
                self.loss_scale.grow()
                return tf.constant(FINITE)

            def leave_out() -> Any:
                strategy.run(_assign, (self.moving_statistics, before))
                mended = self.loss_scale.shrink()
                failure = tf.where(mended, FINITE, GRADIENT_NOT_FINITE)
                return tf.where(loss_is_finite, failure, LOSS_NOT_FINITE)

            self.failure.assign(tf.cond(gradients_are_finite & loss_is_finite, make, leave_out))
            return _of_first_replica(strategy, strategy.run(self.get_metrics_result))

        self.train_function = self._accept_single_batches(update)

    def _gradients(self, image: Any, masks: Any) -> list[Any]:
        """Return the scaled gradients of a replica's part of a batch, and behind them its loss."""
        replicas = self.distribute_strategy.num_replicas_in_sync
        with tf.GradientTape() as tape, batch_over_replicas(_sum_over(replicas)):
            logits = self(network_inputs(self, image, masks), training=True)
            # Keras has divided it by the replicas, so that their sum is the mean.
            loss = self.compute_loss(y=masks, y_pred=logits)
            scaled = loss * (self.loss_scale.scale / self.accumulation)
        self.update_metrics(loss * replicas, masks, logits)
        zero = tf.UnconnectedGradients.ZERO
        gradients = tape.gradient(scaled, self.trainable_variables, unconnected_gradients=zero)
        return [*gradients, loss]

    def _reduce(self, totals: list[Any]) -> tuple[list[Any], Any, Any]:
        """Return the clipped gradients of all replicas, their norm before, and the loss."""
        unscaled = [total / self.loss_scale.scale for total in totals[:-1]]
        *gradients, loss = _all_reduce("SUM", [*unscaled, totals[-1] / self.accumulation])
        norm = tf.linalg.global_norm(gradients)
        if self.clip_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, self.clip_norm, norm)
        return gradients, norm, loss

    def _apply_gradients(self, gradients: list[Any]) -> None:
        """Update the weights, and take the mean of the moving statistics of all replicas."""
        self.optimizer.apply(gradients, self.trainable_variables)
        statistics = self.moving_statistics
        if self.distribute_strategy.num_replicas_in_sync > 1 and statistics:
            _assign(statistics, _all_reduce("MEAN", [v * 1.0 for v in statistics]))

    def make_test_function(self, force: bool = False) -> None:
        """Make the step that takes a batch from an iterator and adds it to the metrics.

        A batch is image, masks and weight (B,): samples of weight 0, which fill up the last batch
        so that the replicas can share it, stand at its end and do not count.
        """
        if self.test_function and not force:
            return
        strategy = self.distribute_strategy
        replicas = strategy.num_replicas_in_sync

        def validate(image: Any, masks: Any, weight: Any = None) -> None:
            logits = self(network_inputs(self, image, masks), training=False)
            if weight is not None:
                count = tf.math.count_nonzero(weight, dtype=tf.int32)
                masks, logits = tf.nest.map_structure(lambda part: part[:count], (masks, logits))
            with batch_over_replicas(_sum_over(replicas)):
                loss = self.compute_loss(y=masks, y_pred=logits, training=False)
            # A replica whose part has no sample at all has no loss of its own.
            loss = tf.where(tf.shape(masks)[0] > 0, loss, 0.0)
            self.update_metrics(loss * replicas, masks, logits)

        @tf.function(reduce_retracing=True)
        @tf.autograph.experimental.do_not_convert
        def validation(iterator: Any) -> Logs:
            strategy.run(validate, iterator.get_next())
            return _of_first_replica(strategy, strategy.run(self.get_metrics_result))

        self.test_function = self._accept_single_batches(validation)

    def _accept_single_batches(self, step: Any) -> Step:
        """Let a step take, besides iterators of datasets, the single batch of Keras's
        `train_on_batch` and `test_on_batch`."""

        def run_step(iterator: Any) -> Logs:
            if not isinstance(iterator, tf.data.Iterator | tf.distribute.DistributedIterator):
                batch = tuple(part for part in next(iterator) if part is not None)
                dataset = tf.data.Dataset.from_tensors(batch).repeat(self.accumulation)
                iterator = iter(self.distribute_strategy.experimental_distribute_dataset(dataset))
            return dict(step(iterator))

        return run_step

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
        if self.iou_weight:
            *heads, expected = heads
            total = self.iou_weight * self.loss_of_iou(_mask_iou(y, heads[0]), expected)
        for level, (weight, logits) in enumerate(zip(self.head_weights, heads, strict=True)):
            every = (slice(None), *[slice(None, None, 2**level)] * (len(logits.shape) - 2))
            total += weight * self.loss_of_masks(y[every], logits)
        return total

    def update_metrics(self, loss: Any, masks: Any, logits: Any) -> None:
        """Add a batch to the metrics."""
        loss_tracker(self).update_state(loss, sample_weight=tf.shape(masks)[0])
        self.segmentation.update_state(masks, self.activation(_as_list(logits)[0]))

    def results(self) -> dict[str, float]:
        """Return the metrics since their reset, over all replicas."""
        with self.distribute_strategy.scope():
            values = self._results_of_all()
        return {name: float(value) for name, value in values.items()}

    def save(self, filepath: str | Path, *arguments: Any, **options: Any) -> None:
        """Save the network, which any Keras reads, for callbacks such as `ModelCheckpoint`."""
        float32_twin(self._network()).save(filepath, *arguments, **options)


def _mask_iou(masks: Any, logits: Any) -> Any:
    """Return the IoU (B, K) of masks (B, *size, K) and logits above 0; 1 where both are empty."""
    truth, found = masks > 0, logits > 0
    axes = list(range(1, len(logits.shape) - 1))
    both = tf.math.count_nonzero(truth & found, axes, dtype=tf.float32)
    either = tf.math.count_nonzero(truth | found, axes, dtype=tf.float32)
    return tf.where(either > 0, both / tf.maximum(either, 1.0), 1.0)


def network_inputs(network: keras.Model, image: Any, masks: Any) -> Any:
    """Return what a network is called on: the image, and where it has a prompt the true tumour.

    Image (B, *size, C) and masks (B, *size, K); the tumour of any kind is (B, *size, 1).
    """
    if len(network.inputs) == 1:
        return image
    tumour = tf.reduce_max(tf.cast(masks, tf.float32), axis=-1, keepdims=True)
    return [tf.convert_to_tensor(image), tumour]


class LossScale:
    """The factor that keeps float16 gradients above the smallest number that float16 has.

    Micikevicius et al. 2018 (arXiv:1710.03740): it is doubled after 2000 updates without an
    overflow, and halved after an update whose gradient overflowed, which is not made. Keras's
    `LossScaleOptimizer` looks at the first device's gradients only, before they are summed. It must
    be made under the strategy's scope.

    Args:
        dynamic: False: the scale is 1 and stays so, as float32 and bfloat16 need none.

    Attributes:
        scale: The factor.
        since_overflow: Updates since the last overflow or doubling.
        skipped: Updates that were not made, since the start of the run.
    """

    def __init__(self, dynamic: bool) -> None:
        self.dynamic = dynamic
        self.scale = _replicated_variable(
            _FIRST_SCALE if dynamic else 1.0, tf.float32, "loss_scale"
        )
        self.since_overflow = _replicated_variable(0, tf.int64, "updates_since_overflow")
        self.skipped = _replicated_variable(0, tf.int64, "skipped_updates")

    @property
    def variables(self) -> list[tf.Variable]:
        """Return the variables that a run must keep to go on."""
        return [self.scale, self.since_overflow, self.skipped]

    def grow(self) -> None:
        """Count an update that was made. To be called across the replicas."""
        if not self.dynamic:
            return
        since = self.since_overflow + 1
        due = since >= _GROWTH_UPDATES
        doubled = tf.minimum(self.scale * 2.0, _LARGEST_SCALE)
        self.scale.assign(tf.where(due, doubled, self.scale))
        self.since_overflow.assign(tf.where(due, tf.zeros_like(since), since))

    def shrink(self) -> Any:
        """Count an update that was not made. To be called across the replicas.

        Returns False if the scale is 1 already, so that the next update would overflow as well.
        """
        self.skipped.assign_add(1)
        if not self.dynamic:
            return tf.constant(False)
        could = self.scale > 1.0
        self.scale.assign(tf.maximum(self.scale / 2.0, 1.0))
        self.since_overflow.assign(0)
        return could


_FIRST_SCALE = 2.0**15
_LARGEST_SCALE = 2.0**24
"""A gradient of zeros would let the scale grow until it overflows itself."""
_GROWTH_UPDATES = 2000


def vary_dropout(model: TrainingModel) -> None:
    """Give the dropout of each replica a seed of its own.

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
            # 2^32 / golden ratio: seeds of neighbouring replicas share no bits.
            shift = tf.cast(replica, state.dtype) * tf.constant(0x9E3779B9, state.dtype)
            state.assign(tf.stack([state[0] + shift, state[1]]))

    strategy.run(tf.function(vary, autograph=False))


def _replicated_variable(value: Any, dtype: tf.DType, name: str) -> Any:
    return tf.Variable(
        value,
        trainable=False,
        dtype=dtype,
        name=name,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )


def _as_list(y_pred: Any) -> list[Any]:
    """Return all logits: Keras takes a single tensor out of its list."""
    return list(y_pred) if isinstance(y_pred, list | tuple) else [y_pred]


def _sum_over(replicas: int) -> Callable[[Any], Any] | None:
    """Return a function that sums a tensor over the replicas; None if there is only one."""
    return None if replicas == 1 else lambda value: _all_reduce("SUM", value)


def _all_reduce(how: str, values: Any) -> Any:
    operation = getattr(tf.distribute.ReduceOp, how)
    return tf.distribute.get_replica_context().all_reduce(operation, values)


def _add_pairwise(totals: list[Any], others: list[Any]) -> list[Any]:
    return [total + other for total, other in zip(totals, others, strict=True)]


def _assign(variables: list[Any], values: list[Any]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _of_first_replica(strategy: tf.distribute.Strategy, values: Any) -> Any:
    """Return the values of the first replica of this machine."""
    return tf.nest.map_structure(lambda v: strategy.experimental_local_results(v)[0], values)
