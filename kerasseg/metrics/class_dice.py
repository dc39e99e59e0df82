"""Dice of one class, or the mean over classes, accumulated over an epoch."""

from typing import Any

import keras
from keras import ops


class ClassDice(keras.metrics.Metric):
    """Dice over all voxels of the epoch, not a mean of batch ratios.

    y_true, y_pred: (B, ..., K); a prediction counts from `threshold` on. `class_index` picks one
    of the K = `classes`; None is the mean over them. A class empty in truth and prediction has
    Dice 1.
    """

    def __init__(
        self,
        classes: int,
        class_index: int | None = None,
        threshold: float = 0.5,
        name: str = "dice",
    ) -> None:
        super().__init__(name=name)
        self.classes = classes
        self.class_index = class_index
        self.threshold = threshold
        self.overlap = self.add_weight(shape=(classes,), initializer="zeros", name="overlap")
        self.total = self.add_weight(shape=(classes,), initializer="zeros", name="total")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        truth = ops.cast(y_true, "float32")
        prediction = ops.cast(y_pred >= self.threshold, "float32")
        axes = tuple(range(len(y_pred.shape) - 1))
        self.overlap.assign_add(ops.sum(truth * prediction, axis=axes))
        self.total.assign_add(ops.sum(truth, axis=axes) + ops.sum(prediction, axis=axes))

    def result(self) -> Any:
        scores = ops.where(self.total > 0, 2.0 * self.overlap / ops.maximum(self.total, 1.0), 1.0)
        return ops.mean(scores) if self.class_index is None else scores[self.class_index]

    def get_config(self) -> dict[str, Any]:
        return {
            "classes": self.classes,
            "class_index": self.class_index,
            "threshold": self.threshold,
            "name": self.name,
        }
