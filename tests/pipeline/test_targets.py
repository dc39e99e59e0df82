import numpy as np
import pytest
import tensorflow as tf

from kerasseg import anatomy
from kerasseg.pipeline.cut import target_masks
from kerasseg.targets import label_to_masks


@pytest.mark.parametrize("target", anatomy.TARGETS)
@pytest.mark.parametrize("dtype", [tf.uint8, tf.int32])
def test_the_masks_of_every_id_are_those_of_numpy(target, dtype):
    """In the graph of a data set, too."""
    ids = np.array(list(anatomy.LABELS), np.uint8)
    masks = target_masks(tf.constant(ids, dtype), target)
    np.testing.assert_array_equal(masks, label_to_masks(ids, target))
    data = tf.data.Dataset.from_tensors(tf.constant(ids, dtype))
    (mapped,) = data.map(lambda label: target_masks(label, target))
    np.testing.assert_array_equal(mapped, masks)
    assert mapped.dtype == masks.dtype == tf.uint8
    assert mapped.shape == (len(anatomy.LABELS), len(anatomy.TARGETS[target]))


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
    assert target_masks(label, "labels").numpy().tolist() == np.eye(4).tolist()
    assert target_masks(label, "regions").numpy().tolist() == [
        [0, 0, 0],
        [1, 1, 0],
        [1, 0, 0],
        [1, 1, 1],
    ]
    assert target_masks(label, "binary").numpy().tolist() == [[0], [1], [1], [1]]
