"""What `augment.preset` does to a training patch."""

import math

import tensorflow as tf

from kerasseg.pipeline.augment.flip import draw_flips, flip
from kerasseg.pipeline.augment.intensity import IntensityRanges, change_intensity, draw_intensity
from kerasseg.pipeline.augment.warp_2d import WarpRanges, draw_warp_2d, warp_2d

_LIGHT = IntensityRanges(brightness=0.2)
_CLASSIC = IntensityRanges(
    log_gamma=0.35, contrast=0.2, brightness=0.2, noise=0.15, noise_share=0.3
)
_CLASSIC_WARP = WarpRanges(
    rotation=math.radians(20),
    log_scale=0.25,
    log_stretch=0.08,
    shift=0.08,
    elastic=0.02,
    knots=6,
    affine_share=0.8,
    elastic_share=0.5,
)


def augment(
    preset: str, image: tf.Tensor, label: tf.Tensor, modalities: int, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Image (*spatial, C) float16 and label (*spatial) uint8 -> the same, varied.

    C is a multiple of `modalities`: in 2.5-D slice by slice. `seed` (2,) alone decides what
    happens. light mirrors along every axis, classic_2d from left to right only, as heads lie.
    """
    if preset == "none":
        return image, label
    rank = len(label.shape)
    axes = tuple(range(rank)) if preset == "light" else (rank - 1,)
    image, label = flip(image, label, axes, draw_flips(tf.random.fold_in(seed, 0), axes))
    pixels = tf.cast(image, tf.float32)
    ranges = _LIGHT
    if preset == "classic_2d":
        ranges = _CLASSIC
        height, width = label.shape
        warp = draw_warp_2d(tf.random.fold_in(seed, 1), (height, width), _CLASSIC_WARP)
        pixels, label = warp_2d(pixels, label, warp)
    intensity = draw_intensity(tf.random.fold_in(seed, 2), modalities, ranges)
    return tf.cast(change_intensity(pixels, intensity), tf.float16), label
