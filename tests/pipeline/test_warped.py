"""Warped patches and slices out of records: as if dense volumes in air were warped."""

import numpy as np
import pytest
import tensorflow as tf

from kerasseg.config import PipelineSettings
from kerasseg.pipeline.augment.spatial import draw_spatial, resample, source_region
from kerasseg.pipeline.patches import _WARP, draw_patch, padding, sample_start
from kerasseg.pipeline.slices import AXES, draw_slice
from kerasseg.settings.augment import Spatial
from tests.pipeline.stored import dense_crop, record_and_volumes
from tests.records.random_case import random_case

STRONG = Spatial(
    rotation=35.0,
    p_rotation=1.0,
    p_scale=1.0,
    shift=0.1,
    elastic=0.03,
    p_elastic=1.0,
)


@pytest.mark.parametrize("patch", [(4, 6, 8), (20, 25, 9)])
def test_a_warped_patch_is_the_warped_volume(patch):
    record, image, label = record_and_volumes(random_case((12, 15, 17), seed=3))
    settings = PipelineSettings(patch_size=patch, tumour_share=0.5)
    for index in range(5):
        seed = tf.constant([4, index])
        found, ids = tf.function(draw_patch)(record, settings, seed, STRONG)
        place = sample_start(record.shape, record.foreground, patch, 0.5, seed)
        place -= padding(record.shape, patch)
        warp = draw_spatial(tf.random.fold_in(seed, _WARP), patch, STRONG)
        first, extent = source_region(warp, patch)
        start = (place + first).numpy().tolist()
        dense = [dense_crop(v, start, extent.numpy().tolist()) for v in (image, label)]
        expected, expected_ids = resample(*map(tf.constant, dense), warp, first, patch)
        np.testing.assert_allclose(found, expected, atol=4e-3)
        np.testing.assert_array_equal(ids, expected_ids)
        assert found.dtype == tf.float16 and found.shape == (*patch, image.shape[-1])


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("neighbours", [0, 1])
def test_a_warp_that_moves_nothing_gives_the_plain_slice(axis, neighbours):
    record, _, _ = record_and_volumes(random_case((12, 15, 17), seed=3))
    slices = {"axis": axis, "neighbours": neighbours}
    settings = PipelineSettings.model_validate({"patch_size": (8, 20), "slices": slices})
    still = Spatial(rotation=0.0, scale=(1.0, 1.0), p_rotation=1.0, p_scale=1.0)
    draw = tf.function(draw_slice)
    for index in range(5):
        seed = tf.constant([4, index])
        plain, label = draw(record, settings, seed)
        same, same_label = draw(record, settings, seed, still)
        np.testing.assert_array_equal(same, plain)
        np.testing.assert_array_equal(same_label, label)
        turned, _ = draw(record, settings, seed, STRONG)
        assert turned.shape == plain.shape


def test_neighbouring_slices_are_warped_alike():
    """The middle slice of three is the one that is drawn alone."""
    record, _, _ = record_and_volumes(random_case((12, 15, 17), seed=3))
    draw = tf.function(draw_slice)
    for index in range(5):
        seed = tf.constant([9, index])
        one, three = (
            draw(
                record,
                PipelineSettings.model_validate(
                    {"patch_size": (8, 20), "slices": {"neighbours": n}}
                ),
                seed,
                STRONG,
            )
            for n in (0, 1)
        )
        channels = one[0].shape[-1]
        np.testing.assert_allclose(three[0][..., channels : 2 * channels], one[0], atol=2e-3)
        np.testing.assert_array_equal(three[1], one[1])
