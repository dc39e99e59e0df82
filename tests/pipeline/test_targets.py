import numpy as np
import pytest
import tensorflow as tf

from kerasseg import anatomy
from kerasseg.pipeline.targets import target_masks


@pytest.mark.parametrize("target", anatomy.TARGETS)
def test_masks_against_counting_by_hand(target):
    label = np.random.default_rng(0).integers(0, 4, (3, 4, 5, 6)).astype(np.uint8)
    masks = target_masks(tf.constant(label), target)
    assert masks.dtype == tf.uint8
    channels = anatomy.TARGETS[target].values()
    np.testing.assert_array_equal(
        masks, np.stack([np.isin(label, ids) for ids in channels], axis=-1)
    )


def test_what_the_targets_mean():
    label = tf.constant([0, 1, 2, 3], tf.uint8)
    assert target_masks(label, "subregions").numpy().tolist() == [
        [0, 0, 0],
        [1, 0, 0],
        [0, 1, 0],
        [0, 0, 1],
    ]
    assert target_masks(label, "binary").numpy().tolist() == [[0], [1], [1], [1]]
