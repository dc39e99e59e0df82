"""A list of transforms, applied to a patch one after the other."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from kerasseg.pipeline.augment.albumentations import apply_albumentations
from kerasseg.pipeline.augment.bias_field import draw_bias_field, multiply_bias_field
from kerasseg.pipeline.augment.blur import blur, draw_blur
from kerasseg.pipeline.augment.brightness import add_brightness, draw_brightness
from kerasseg.pipeline.augment.channel_dropout import draw_channel_dropout, drop_channels
from kerasseg.pipeline.augment.coarse_dropout import draw_coarse_dropout, drop_boxes
from kerasseg.pipeline.augment.contrast import change_contrast, draw_contrast
from kerasseg.pipeline.augment.drawing import happens
from kerasseg.pipeline.augment.gamma import change_gamma, draw_gamma
from kerasseg.pipeline.augment.gaussian_noise import add_gaussian_noise, draw_gaussian_noise
from kerasseg.pipeline.augment.ghosting import add_ghosts, draw_ghosting
from kerasseg.pipeline.augment.low_resolution import draw_low_resolution, lower_resolution
from kerasseg.pipeline.augment.patch import Patch
from kerasseg.pipeline.augment.rician_noise import add_rician_noise, draw_rician_noise
from kerasseg.pipeline.augment.rotate90 import draw_quarters, rotate90
from kerasseg.pipeline.augment.scaling import draw_scaling, scale_intensity
from kerasseg.settings import augment as settings

_CHANCE, _DRAW = 0, 1
"""Streams of a transform's seed: whether it happens, and how."""
_WHERE_IT_IS_CUT = (settings.Flip, settings.Spatial)
ANYWHERE, HOST, DEVICE = "anywhere", "host", "device"
"""Where transforms are applied: all here, or those that only the host can do, or the others."""


def augment(
    transforms: Sequence[settings.Transform],
    image: tf.Tensor,
    label: tf.Tensor,
    patch: Patch,
    seed: tf.Tensor,
    where: str = ANYWHERE,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Image (*size, C) float16 and label (*size) or masks (*size, K) uint8 -> the same, varied.

    `seed` (2,) alone decides what happens. `Flip` and `Spatial` are left out here: they take place
    where the patch is cut out of its volume (`pipeline/cut.py`).
    """
    chosen = [(i, t) for i, t in enumerate(transforms) if _belongs(t, where)]
    if not chosen:
        return image, label
    pixels = tf.cast(image, tf.float32)
    for index, transform in chosen:
        own = tf.random.fold_in(seed, index)
        if isinstance(transform, settings.Rotate90):
            pixels, label = _turn(transform, pixels, label, patch, own)
        elif isinstance(transform, settings.Albumentations):
            pixels, label = apply_albumentations(transform, pixels, label, patch.modalities, own)
        else:
            pixels = _change(transform, pixels, patch, own)
    return tf.cast(pixels, tf.float16), label


def _belongs(transform: settings.Transform, where: str) -> bool:
    if isinstance(transform, _WHERE_IT_IS_CUT):
        return False
    host_only = isinstance(transform, settings.Albumentations)
    return where == ANYWHERE or host_only == (where == HOST)


def _turn(
    transform: settings.Rotate90,
    image: tf.Tensor,
    label: tf.Tensor,
    patch: Patch,
    seed: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    axes = patch.axes(transform.axes)
    quarters = draw_quarters(tf.random.fold_in(seed, _DRAW))
    return tf.cond(
        happens(seed, _CHANCE, transform.p, []),
        lambda: rotate90(image, label, (axes[0], axes[1]), quarters),
        lambda: (image, label),
    )


def _change(transform: Any, image: tf.Tensor, patch: Patch, seed: tf.Tensor) -> tf.Tensor:
    """The intensities, or not, as `p` says: what does not happen costs nothing."""
    change = _INTENSITY[type(transform)]
    draw = tf.random.fold_in(seed, _DRAW)
    return tf.cond(
        happens(seed, _CHANCE, transform.p, []),
        lambda: tf.ensure_shape(change(transform, image, patch, draw), image.shape),
        lambda: image,
    )


def _gamma(t: settings.Gamma, image: tf.Tensor, patch: Patch, seed: tf.Tensor) -> tf.Tensor:
    gamma = patch.channels(draw_gamma(seed, patch.modalities, t))
    return change_gamma(image, gamma, invert=t.invert, keep_moments=t.keep_moments)


def _contrast(t: settings.Contrast, image: tf.Tensor, patch: Patch, seed: tf.Tensor) -> tf.Tensor:
    factor = patch.channels(draw_contrast(seed, patch.modalities, t))
    return change_contrast(image, factor, keep_range=t.keep_range)


def _bias_field(
    t: settings.BiasField, image: tf.Tensor, patch: Patch, seed: tf.Tensor
) -> tf.Tensor:
    return multiply_bias_field(image, draw_bias_field(seed, len(patch.size), t), t.order)


def _ghosting(t: settings.Ghosting, image: tf.Tensor, patch: Patch, seed: tf.Tensor) -> tf.Tensor:
    axes = patch.axes(t.axes)
    return add_ghosts(image, axes, draw_ghosting(seed, len(axes), t)) if axes else image


def _per_modality(draw: Callable[..., Any], apply: Callable[..., Any]) -> Callable[..., Any]:
    return lambda t, image, patch, seed: apply(
        image, patch.channels(draw(seed, patch.modalities, t))
    )


_INTENSITY: dict[type, Callable[..., tf.Tensor]] = {
    settings.Gamma: _gamma,
    settings.Brightness: _per_modality(draw_brightness, add_brightness),
    settings.Scaling: _per_modality(draw_scaling, scale_intensity),
    settings.Contrast: _contrast,
    settings.GaussianNoise: lambda t, image, _, seed: add_gaussian_noise(
        image, draw_gaussian_noise(seed, t)
    ),
    settings.RicianNoise: lambda t, image, _, seed: add_rician_noise(
        image, draw_rician_noise(seed, t)
    ),
    settings.Blur: _per_modality(draw_blur, blur),
    settings.LowResolution: _per_modality(draw_low_resolution, lower_resolution),
    settings.BiasField: _bias_field,
    settings.Ghosting: _ghosting,
    settings.ChannelDropout: _per_modality(draw_channel_dropout, drop_channels),
    settings.CoarseDropout: lambda t, image, patch, seed: drop_boxes(
        image, draw_coarse_dropout(seed, patch.size, t)
    ),
}
