import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasseg.pipeline.parse import parse_record
from kerasseg.pipeline.take_rows import take_rows
from kerasseg.pipeline.voxel_rows import voxel_rows
from kerasseg.records.schema import encode
from tests.pipeline.stored import dense_crop, record_and_volumes
from tests.records.random_case import random_case


@settings(max_examples=80, deadline=None)
@given(
    st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 27)),
    st.sampled_from([0.0, 0.2, 0.9, 1.0]),
    st.tuples(*[st.integers(-12, 30)] * 3),
    st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 20)),
    st.integers(0, 999),
)
def test_rows_fill_every_box_as_the_dense_volume_would(shape, brain, start, size, seed):
    record, image, label = record_and_volumes(random_case(shape, brain=brain, seed=seed))
    rows = voxel_rows(record, tf.constant(start), size)
    for table, volume in ((record.values, image), (record.labels, label)):
        found = take_rows(table, rows).numpy()
        np.testing.assert_array_equal(found, dense_crop(volume, list(start), list(size)))


@pytest.mark.parametrize("compression", ["none", "zlib"])
def test_a_record_is_parsed_as_the_schema_says(compression):
    case = random_case((4, 5, 13), channels=3)
    record, image, label = record_and_volumes(case, compression)
    assert record.shape.numpy().tolist() == [4, 5, 13]
    rows = voxel_rows(record, tf.constant([0, 0, 0]), record.shape)
    np.testing.assert_array_equal(take_rows(record.values, rows), image.astype(np.float16))
    np.testing.assert_array_equal(take_rows(record.labels, rows), label)
    for class_id, voxels in enumerate(record.foreground, start=1):
        np.testing.assert_array_equal(voxels, np.argwhere(label == class_id))
    for voxels, mask in (
        (record.brain_voxels, image.any(axis=-1) | (label > 0)),
        (record.tumour_voxels, label > 0),
    ):
        sums = [mask.sum(axis=axes) for axes in ((1, 2), (0, 2), (0, 1))]
        np.testing.assert_array_equal(voxels, np.concatenate(sums))


def test_the_graph_knows_the_channels():
    parse = tf.function(lambda serialized: parse_record(serialized, 2)).get_concrete_function(
        tf.TensorSpec([], tf.string)
    )
    assert parse.structured_outputs.values.shape.as_list() == [None, 2]
    record = parse(tf.constant(encode(random_case((3, 4, 5)), 10).payload))
    assert record.values.dtype == tf.float16
