"""The Keras class under all losses of masks."""

from abc import abstractmethod
from typing import Any

import keras
from keras import ops

from kerasseg.losses.activation import check_activation, logits_of, probabilities
from kerasseg.losses.overlap import check_reduction


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
