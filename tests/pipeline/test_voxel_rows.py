import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from kerasseg.pipeline.records import TableSizes, parse_record, voxel_rows
from kerasseg.records.schema import encode
from tests.pipeline.stored import SIZES, dense_crop, record_and_volumes
from tests.records.random_case import random_case


def box_rows(voxels, start, size):
    lines = [tf.range(s, s + n) for s, n in zip(start, size, strict=True)]
    return voxel_rows(voxels, lines[0][:, None, None], lines[1][:, None], lines[2]).numpy()


@given(
    st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 27)),
    st.sampled_from([0.0, 0.2, 0.9, 1.0]),
    st.tuples(*[st.integers(-12, 30)] * 3),
    st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 20)),
    st.integers(0, 999),
)
def test_rows_fill_every_box_as_the_dense_volume_would(shape, brain, start, size, seed):
    record, image, label = record_and_volumes(random_case(shape, brain=brain, seed=seed))
    rows = box_rows(record.voxels, start, size)
    for table, volume in ((record.voxels.values, image), (record.voxels.labels, label)):
        found = table.numpy()[rows]
        np.testing.assert_array_equal(found, dense_crop(volume, list(start), list(size)))


@pytest.mark.parametrize("compression", ["none", "zlib"])
def test_a_record_is_parsed_as_the_schema_says(compression):
    case = random_case((4, 5, 13), channels=3)
    record, image, label = record_and_volumes(case, compression)
    assert record.voxels.shape.numpy().tolist() == [4, 5, 13]
    rows = box_rows(record.voxels, (0, 0, 0), (4, 5, 13))
    np.testing.assert_array_equal(record.voxels.values.numpy()[rows], image.astype(np.float16))
    np.testing.assert_array_equal(record.voxels.labels.numpy()[rows], label)
    for class_id, voxels in enumerate(record.foreground, start=1):
        np.testing.assert_array_equal(voxels, np.argwhere(label == class_id))
    for voxels, mask in (
        (record.brain_voxels, image.any(axis=-1) | (label > 0)),
        (record.tumour_voxels, label > 0),
    ):
        sums = [mask.sum(axis=axes) for axes in ((1, 2), (0, 2), (0, 1))]
        np.testing.assert_array_equal(voxels, np.concatenate(sums))


def test_the_graph_knows_the_channels():
    parse = tf.function(
        lambda serialized: parse_record(serialized, 2, SIZES)
    ).get_concrete_function(tf.TensorSpec([], tf.string))
    assert parse.structured_outputs.voxels.values.shape == (SIZES.rows, 2)
    record = parse(tf.constant(encode(random_case((3, 4, 5)), 10).payload))
    assert record.voxels.values.dtype == tf.float16


def test_tables_have_room_for_the_largest_case(phantom_store):
    rows = list(phantom_store.rows.values())
    sizes = TableSizes.of(rows)
    stored = [phantom_store.load(row.case_id).case for row in rows]
    brains = [(case.image.any(axis=-1) | (case.label > 0)).sum() + 1 for case in stored]
    assert sizes.rows == max(brains)
    assert sizes.bytes == max(d * h * ((w + 7) // 8) for d, h, w, _ in (r.shape for r in rows))
    older = [row.model_copy(update={"stored_voxels": None}) for row in rows]
    assert TableSizes.of(older).rows == 1 + max(d * h * w for d, h, w, _ in (r.shape for r in rows))
