"""The Keras class under all losses of masks.

What the losses of the Dice family share: sums of voxels per class, and the mean over classes.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, get_args

import keras
from keras import ops

from kerasseg.losses.activation import check_activation, logits_of, probabilities

Reduction = Literal["batch", "sample"]
"""batch: sums over all voxels of the batch together. sample: over those of each sample, and the
loss is the mean over samples."""

_sum_over_replicas: ContextVar[Callable[[Any], Any] | None] = ContextVar(
    "sum_over_replicas", default=None
)


@contextmanager
def batch_over_replicas(sum_over_replicas: Callable[[Any], Any] | None) -> Iterator[None]:
    """Within it the batch of reduction `batch` is that of all replicas, not the part of one.

    `sum_over_replicas` adds up a tensor over them, with a gradient; None: there is one only.
    """
    token = _sum_over_replicas.set(sum_over_replicas)
    try:
        yield
    finally:
        _sum_over_replicas.reset(token)


def check_reduction(reduction: str) -> Reduction:
    """The reduction, or ValueError."""
    for known in get_args(Reduction):
        if reduction == known:
            return known
    raise ValueError(f"reduction: expected batch or sample, found {reduction!r}")


def class_sums(masks: Any, reduction: Reduction) -> Any:
    """Sums of (B, ..., K) over the voxels: (1, K) of `batch`, (B, K) of `sample`, float32."""
    masks = ops.cast(masks, "float32")
    axes = tuple(range(0 if reduction == "batch" else 1, len(masks.shape) - 1))
    sums = ops.sum(masks, axis=axes)
    if reduction == "sample":
        return sums
    over_replicas = _sum_over_replicas.get()
    return ops.expand_dims(over_replicas(sums) if over_replicas else sums, 0)


def batch_mean(values: Any) -> Any:
    """Mean over (B, ...), of several replicas over all their parts; not to be differentiated."""
    mean, over_replicas = ops.mean(values), _sum_over_replicas.get()
    if over_replicas is None:
        return mean
    size = ops.cast(ops.shape(values)[0], "float32")
    total = ops.where(size > 0, mean * size, 0.0)  # the part of one may be empty
    total, size = ops.unstack(over_replicas(ops.stack([total, size])), 2)
    return total / size


def class_mean(losses: Any, weights: Sequence[float] | None) -> Any:
    """Mean over samples of (B, K), then the mean over classes weighted by `weights` (K,).

    The weights are divided by their sum, so that only their ratios count; None: all equal. A class
    of weight 0 is left out.
    """
    per_class = ops.mean(losses, axis=0)
    if weights is None:
        return ops.mean(per_class)
    return ops.sum(per_class * normalised(weights, per_class.shape[0]))


def normalised(weights: Sequence[float], channels: int) -> Any:
    """The weights (K,) divided by their sum. ValueError unless there are K, and one above 0."""
    if len(weights) != channels:
        raise ValueError(f"{len(weights)} class weights {list(weights)} for {channels} channels")
    total = math.fsum(weights)
    if not total > 0 or min(weights) < 0:
        raise ValueError(f"class weights {list(weights)}: none may be negative, nor all 0")
    return ops.convert_to_tensor([weight / total for weight in weights], "float32")


class SegmentationLoss(keras.losses.Loss):
    """A loss of masks y_true (B, ..., K) and predictions y_pred (B, ..., K); one float32 number.

    y_true may be of any type, 0 and 1 (of softmax one-hot). y_pred: with `from_logits` logits,
    else probabilities. Masks and predictions are made float32 before anything is summed, whatever
    the precision of the network. Weights per sample are refused, because sums over a batch have
    no samples.

    options: the further arguments of `__init__`, which `value` gives to its pure function. Their
    `reduction` is `batch` or `sample`; it is not the one of Keras's losses.
    """

    def __init__(self, from_logits: bool, activation: str, name: str, **options: Any) -> None:
        super().__init__(name=name, dtype="float32")
        self.from_logits = from_logits
        self.activation = check_activation(activation)
        if "reduction" in options:
            check_reduction(options["reduction"])
        # A config read from JSON has lists.
        self.options: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in options.items()
        }

    @abstractmethod
    def value(self, y_true: Any, y_pred: Any) -> Any:
        """The loss, a scalar."""

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        if sample_weight is not None:
            raise ValueError(
                f"{self.name}: weights per sample are not supported; use class weights"
            )
        return super().__call__(y_true, y_pred)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        check_shapes(y_true, y_pred)
        # Keras divides a loss by the number of replicas, unless it is a scalar already.
        return ops.reshape(self.value(y_true, y_pred), (1,))

    def probabilities(self, y_pred: Any) -> Any:
        """Predictions as probabilities."""
        return probabilities(y_pred, self.activation) if self.from_logits else y_pred

    def logits(self, y_pred: Any) -> Any:
        """Predictions as logits."""
        return y_pred if self.from_logits else logits_of(y_pred, self.activation)

    def get_config(self) -> dict[str, Any]:
        return {
            "from_logits": self.from_logits,
            "activation": self.activation,
            "name": self.name,
            **self.options,
        }


def check_shapes(y_true: Any, y_pred: Any) -> None:
    """ValueError where the shapes differ: one channel would be compared with all without a word."""
    true, predicted = tuple(y_true.shape), tuple(y_pred.shape)
    alike = len(true) == len(predicted) and all(
        t is None or p is None or t == p for t, p in zip(true, predicted, strict=True)
    )
    if not alike:
        raise ValueError(f"y_true {true} and y_pred {predicted} must have the same shape")
