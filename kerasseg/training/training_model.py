"""The network as it is trained: logits, extra heads, loss and metrics."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kerasseg import anatomy
from kerasseg.metrics.segmentation import SegmentationMetrics
from kerasseg.models.deep_supervision import supervision_logits
from kerasseg.models.float32_twin import float32_twin
from kerasseg.training.loss_scale import LossScale
from kerasseg.training.update import make_update, make_validation


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
