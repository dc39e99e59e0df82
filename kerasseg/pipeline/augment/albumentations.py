"""Albumentations' transforms, in the graph."""

import numpy as np
import tensorflow as tf

from kerasseg.config.augment import Albumentations
from kerasseg.slice_transforms import SliceTransforms


def apply_albumentations(
    settings: Albumentations, image: tf.Tensor, label: tf.Tensor, modalities: int, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Image (h, w, C) float32 and label (h, w) uint8 -> the same, varied.

    `seed` (2,) alone decides what happens, in whichever thread. `modalities` as in
    `SliceTransforms`.
    """
    transforms = SliceTransforms(settings.terms, modalities)

    def apply(image: np.ndarray, label: np.ndarray, seed: np.ndarray) -> tuple:
        first, second = (int(half) for half in seed.astype(np.uint32))
        changed, moved = transforms(image, label, first << 32 | second)
        return changed.astype(np.float32, copy=False), moved.astype(np.uint8, copy=False)

    # Not stateful: under op determinism tf.data would call it one patch at a time.
    changed, moved = tf.numpy_function(
        apply, [image, label, seed], [tf.float32, tf.uint8], stateful=False
    )
    return tf.ensure_shape(changed, image.shape), tf.ensure_shape(moved, label.shape)
