"""Dropout that differs from replica to replica."""

import tensorflow as tf

from kerasseg.training.training_model import TrainingModel

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
