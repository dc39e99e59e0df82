"""Augmentation of whole batches, on the device that trains."""

from collections.abc import Sequence

import tensorflow as tf

from kerasseg.pipeline.augment.compose import DEVICE, augment
from kerasseg.pipeline.augment.patch import Patch
from kerasseg.settings.augment import Transform


def augment_batch(
    transforms: Sequence[Transform],
    images: tf.Tensor,
    masks: tf.Tensor,
    seeds: tf.Tensor,
    patch: Patch,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Images (B, *size, C) float16 and masks (B, *size, K) uint8 -> the same, varied.

    What `TrainingBatches` with `augment_later` has left out. `seeds` (B, 2) decide what happens to
    each patch: the same as on the host.
    """

    def one(parts: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, tf.Tensor]:
        image, mask, seed = parts
        changed, moved = augment(transforms, image, mask, patch, seed, DEVICE)
        return tf.ensure_shape(changed, image.shape), tf.ensure_shape(moved, mask.shape)

    specs = (
        tf.TensorSpec([*patch.size, patch.channel_count], images.dtype),
        tf.TensorSpec([*patch.size, masks.shape[-1]], masks.dtype),
    )
    images = tf.ensure_shape(images, [None, *specs[0].shape])
    masks = tf.ensure_shape(masks, [None, *specs[1].shape])
    varied: tuple[tf.Tensor, tf.Tensor] = tf.map_fn(
        one, (images, masks, seeds), fn_output_signature=specs, parallel_iterations=1
    )
    return varied
