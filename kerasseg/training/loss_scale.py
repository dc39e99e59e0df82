"""Dynamic loss scaling, decided on the gradients of all devices together."""

from typing import Any

import tensorflow as tf

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
