"""Dice, IoU, precision and recall per channel, accumulated over an epoch."""

import functools
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kerasseg import anatomy

_STEP = 4096.0
"""2^12. float32 counts exactly up to 2^24 only: a counter of 16.8 million voxels, eight patches of
128^3, does not grow any more when 1 is added. So a count is high * 2^12 + low."""

_BACKGROUND = anatomy.LABELS[anatomy.BACKGROUND]


class SegmentationMetrics(keras.metrics.Metric):
    """Scores of all voxels since the last reset, not means of the batches' ratios.

    channels:  names of the K channels of masks and probabilities; `background` is not scored
    softmax:   a voxel belongs to its most probable channel (the first of equals); otherwise each
               channel holds from `threshold` on
    threshold: probability from which a voxel counts, not used with softmax

    `result()` is a flat dict: `dice`, `iou`, `precision` and `recall` are means over the scored
    channels, `dice_<channel>`… those of one. With TP, FP and FN the counted voxels, Dice is
    2 TP / (2 TP + FP + FN), IoU TP / (TP + FP + FN), precision TP / (TP + FP), recall
    TP / (TP + FN). A channel empty in truth and prediction scores 1 in all four, one that is empty
    in one of them 0 (the rule of BraTS, and of `metrics.dice`).

    Counts are exact up to 2^36 voxels (6.9e10, 16,000 batches of two 128^3 patches) per channel, in
    float32 so that every backend has them and replicas can sum them; the axes of a batch may have
    up to 4096 voxels each.
    """

    def __init__(
        self,
        channels: Sequence[str],
        softmax: bool = False,
        threshold: float = 0.5,
        name: str = "segmentation",
    ) -> None:
        super().__init__(name=name)
        self.channels = tuple(channels)
        self.softmax = softmax
        self.threshold = threshold
        self._scored = [i for i, c in enumerate(self.channels) if c != _BACKGROUND]
        if not self._scored or (softmax and len(self.channels) < 2):
            raise ValueError(
                f"channels {self.channels} leave nothing to score: give one besides the "
                "background, and with softmax two in all"
            )
        self._high, self._low = (
            self.add_weight((3, len(self._scored)), "zeros", dtype="float32", name=part)
            for part in ("high", "low")
        )

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count masks y_true (B, ..., K), 0 or 1, against probabilities y_pred of that shape.

        Voxels are counted whole or not at all: samples whose `sample_weight` (B,) is 0, as the
        fillers of our validation batches have it, do not count, all others do.
        """
        counted: Any = 1.0
        if sample_weight is not None:
            kept = ops.cast(ops.not_equal(sample_weight, 0), "float32")
            counted = ops.reshape(kept, (-1, *[1] * (len(y_pred.shape) - 2)))
        # Channel by channel: sums along the last axis are several times as fast on a CPU.
        probabilities = ops.unstack(y_pred, len(self.channels), axis=-1)
        counts = []
        for channel in self._scored:
            truth = ops.cast(y_true[..., channel], "float32") * counted
            prediction = ops.cast(self._chosen(probabilities, channel), "float32") * counted
            hits = truth * prediction
            counts += [*_count(hits), *_count(prediction - hits), *_count(truth - hits)]
        by_channel = ops.reshape(ops.stack(counts), (len(self._scored), 3, 2))
        self._add(*ops.unstack(ops.transpose(by_channel), 2))

    def result(self) -> dict[str, Any]:
        hits, false_positives, false_negatives = ops.unstack(self._high * _STEP + self._low, 3)
        wrong = false_positives + false_negatives
        scores = {
            "dice": (2.0 * hits, 2.0 * hits + wrong),
            "iou": (hits, hits + wrong),
            "precision": (hits, hits + false_positives),
            "recall": (hits, hits + false_negatives),
        }
        results = {}
        for score, (above, below) in scores.items():
            ratio = ops.where(hits + wrong > 0, above / ops.maximum(below, 1.0), 1.0)
            results[score] = ops.mean(ratio)
            for place, channel in enumerate(self._scored):
                results[f"{score}_{self.channels[channel]}"] = ratio[place]
        return results

    def get_config(self) -> dict[str, Any]:
        return {
            "channels": list(self.channels),
            "softmax": self.softmax,
            "threshold": self.threshold,
            "name": self.name,
        }

    def _chosen(self, probabilities: Sequence[Any], channel: int) -> Any:
        """Return the masks of the predicted channels."""
        own = probabilities[channel]
        if not self.softmax:
            return ops.greater_equal(own, self.threshold)
        # ops.argmax over four values per voxel took longer than all the rest.
        wins = [own > other for other in probabilities[:channel]]
        wins += [own >= other for other in probabilities[channel + 1 :]]
        return functools.reduce(ops.logical_and, wins)

    def _add(self, high: Any, low: Any) -> None:
        """Add counts (3, scored channels) of high * 2^12 + low, low below 2^24."""
        carry = ops.floor(low / _STEP)
        new_low = self._low + (low - carry * _STEP)
        again = ops.floor(new_low / _STEP)
        self._high.assign(self._high + high + carry + again)
        self._low.assign(new_low - again * _STEP)


def _count(values: Any) -> tuple[Any, Any]:
    """Sum (B, ...) of 0 and 1, as high and low of high * 2^12 + low, axis by axis: no partial sum
    along an axis of up to 2^12 exceeds 2^24."""
    low = ops.sum(values, axis=-1)
    high = ops.zeros_like(low)
    while len(low.shape) > 0:
        carry = ops.floor(low / _STEP)
        high = ops.sum(high + carry, axis=-1)
        low = ops.sum(low - carry * _STEP, axis=-1)
    return high, low
