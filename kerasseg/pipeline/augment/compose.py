"""A list of transforms, applied to a patch one after the other.

Augmentation of whole batches, on the device that trains.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from kerasseg.config import augment as settings
from kerasseg.config.augment import Transform
from kerasseg.pipeline.augment.albumentations import apply_albumentations
from kerasseg.pipeline.augment.artefacts import (
    add_ghosts,
    blur,
    draw_bias_field,
    draw_blur,
    draw_ghosting,
    draw_low_resolution,
    lower_resolution,
    multiply_bias_field,
)
from kerasseg.pipeline.augment.drawing import happens
from kerasseg.pipeline.augment.intensity import (
    add_brightness,
    add_gaussian_noise,
    add_rician_noise,
    change_contrast,
    change_gamma,
    draw_brightness,
    draw_channel_dropout,
    draw_coarse_dropout,
    draw_contrast,
    draw_gamma,
    draw_gaussian_noise,
    draw_rician_noise,
    draw_scaling,
    drop_boxes,
    drop_channels,
    scale_intensity,
)
from kerasseg.pipeline.augment.patch import Patch
from kerasseg.pipeline.augment.spatial import draw_quarters, rotate90

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
