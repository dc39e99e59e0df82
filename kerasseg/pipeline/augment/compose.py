"""A list of transforms, applied one after the other to a patch or to each patch of a batch."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kerasseg.config import augment as settings
from kerasseg.config.augment import Albumentations, Transform
from kerasseg.config.base import check_arguments, import_object
from kerasseg.pipeline.augment import intensity
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
from kerasseg.pipeline.augment.patch import Patch
from kerasseg.pipeline.augment.spatial import draw_quarters, rotate90
from kerasseg.slice_transforms import SliceTransforms

_CHANCE, _DRAW = 0, 1
"""Streams of a transform's seed: one decides whether it happens, one how."""
_WHERE_IT_IS_CUT = (settings.Flip, settings.Spatial)
ANYWHERE, HOST, DEVICE = "anywhere", "host", "device"
"""Which transforms `augment` applies."""


def augment(
    transforms: Sequence[settings.Transform],
    image: tf.Tensor,
    label: tf.Tensor,
    patch: Patch,
    seed: tf.Tensor,
    where: str = ANYWHERE,
    background: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the image and the label of a patch, varied by each transform in turn.

    `Flip` and `Spatial` are left out here: they take place where the patch is cut out of its
    volume (`pipeline/cut.py`).

    Args:
        transforms: The transforms, in the order in which they are applied.
        image: (*size, C) float16.
        label: Label map (*size) or masks (*size, K), uint8.
        patch: The form of the patches.
        seed: (2,); it alone decides what happens.
        where: ANYWHERE for all transforms, HOST for those that only the host can do, DEVICE for
            the others.
        background: Values (M,) of what is outside of the picture, by default 0; what Albumentations
            turn or shift in gets them.
    """
    chosen = [(i, t) for i, t in enumerate(transforms) if _is_applied(t, where)]
    if not chosen:
        return image, label
    pixels = tf.cast(image, tf.float32)
    for index, transform in chosen:
        own = tf.random.fold_in(seed, index)
        if isinstance(transform, settings.Rotate90):
            pixels, label = _turn(transform, pixels, label, patch, own)
        elif isinstance(transform, settings.Albumentations):
            pixels, label = apply_albumentations(
                transform, pixels, label, patch.modalities, own, background
            )
        elif isinstance(transform, settings.Imported):
            pixels, label = _apply_imported(transform, pixels, label, own)
        else:
            pixels = _change(transform, pixels, patch, own)
    return tf.cast(pixels, tf.float16), label


def _is_applied(transform: settings.Transform, where: str) -> bool:
    if isinstance(transform, _WHERE_IT_IS_CUT):
        return False
    host_only = isinstance(transform, settings.Albumentations)
    return where == ANYWHERE or host_only == (where == HOST)


def apply_albumentations(
    settings: Albumentations,
    image: tf.Tensor,
    label: tf.Tensor,
    modalities: int,
    seed: tf.Tensor,
    background: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Apply Albumentations' transforms to an image (h, w, C) float32 and its label (h, w) uint8.

    Args:
        modalities: Channels of one slice.
        seed: (2,); it alone decides what happens, in whichever thread.
        background: Values (M,) of what is outside of the slice, by default 0.
    """
    transforms = SliceTransforms(settings.terms, modalities)
    outside = tf.zeros([modalities]) if background is None else background

    def apply(image: np.ndarray, label: np.ndarray, seed: np.ndarray, outside: np.ndarray) -> tuple:
        first, second = (int(half) for half in seed.astype(np.uint32))
        changed, moved = transforms(image, label, first << 32 | second, outside)
        return changed.astype(np.float32, copy=False), moved.astype(np.uint8, copy=False)

    # Not stateful: under op determinism tf.data would call it one patch at a time.
    changed, moved = tf.numpy_function(
        apply,
        [image, label, seed, tf.cast(outside, tf.float32)],
        [tf.float32, tf.uint8],
        stateful=False,
    )
    return tf.ensure_shape(changed, image.shape), tf.ensure_shape(moved, label.shape)


def _turn(
    transform: settings.Rotate90, image: tf.Tensor, label: tf.Tensor, patch: Patch, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    axes = patch.axes(transform.axes)
    quarters = draw_quarters(tf.random.fold_in(seed, _DRAW))
    return tf.cond(
        happens(seed, _CHANCE, transform.p, []),
        lambda: rotate90(image, label, (axes[0], axes[1]), quarters),
        lambda: (image, label),
    )


def imported_function(transform: settings.Imported) -> Callable[..., Any]:
    """Return the function of the user. Raises `UserError` where there is none of that form."""
    setting, path = "augment.transforms", transform.path
    function: Callable[..., Any] = import_object(setting, path, "a function of image and label")
    check_arguments(setting, path, function, ("image", "label", "seed"), transform.options)
    return function


def _apply_imported(
    transform: settings.Imported, image: tf.Tensor, label: tf.Tensor, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    function, draw = imported_function(transform), tf.random.fold_in(seed, _DRAW)

    def apply() -> tuple[tf.Tensor, tf.Tensor]:
        changed, moved = function(image, label, draw, **transform.options)
        changed, moved = tf.cast(changed, image.dtype), tf.cast(moved, label.dtype)
        return tf.ensure_shape(changed, image.shape), tf.ensure_shape(moved, label.shape)

    return tf.cond(happens(seed, _CHANCE, transform.p, []), apply, lambda: (image, label))


def _change(transform: Any, image: tf.Tensor, patch: Patch, seed: tf.Tensor) -> tf.Tensor:
    """Change the intensities with the probability `p`; a patch left as it is costs nothing."""
    change = _INTENSITY[type(transform)]
    draw = tf.random.fold_in(seed, _DRAW)
    return tf.cond(
        happens(seed, _CHANCE, transform.p, []),
        lambda: tf.ensure_shape(change(transform, image, patch, draw), image.shape),
        lambda: image,
    )


def _gamma(t: settings.Gamma, image: tf.Tensor, patch: Patch, seed: tf.Tensor) -> tf.Tensor:
    gamma = patch.channels(intensity.draw_gamma(seed, patch.modalities, t))
    return intensity.change_gamma(image, gamma, invert=t.invert, keep_moments=t.keep_moments)


def _contrast(t: settings.Contrast, image: tf.Tensor, patch: Patch, seed: tf.Tensor) -> tf.Tensor:
    factor = patch.channels(intensity.draw_contrast(seed, patch.modalities, t))
    return intensity.change_contrast(image, factor, keep_range=t.keep_range)


def _bias_field(
    t: settings.BiasField, image: tf.Tensor, patch: Patch, seed: tf.Tensor
) -> tf.Tensor:
    return multiply_bias_field(image, draw_bias_field(seed, len(patch.size), t), t.order)


def _ghosting(t: settings.Ghosting, image: tf.Tensor, patch: Patch, seed: tf.Tensor) -> tf.Tensor:
    axes = patch.axes(t.axes)
    return add_ghosts(image, axes, draw_ghosting(seed, len(axes), t)) if axes else image


def _channel_copy(
    t: settings.ChannelCopy, image: tf.Tensor, patch: Patch, seed: tf.Tensor
) -> tf.Tensor:
    replaced = patch.channels(intensity.draw_channel_copy(seed, patch.modalities, t))
    return intensity.copy_channel(image, replaced, t.source, patch.modalities)


def _per_modality(draw: Callable[..., Any], apply: Callable[..., Any]) -> Callable[..., Any]:
    return lambda t, image, patch, seed: apply(
        image, patch.channels(draw(seed, patch.modalities, t))
    )


_INTENSITY: dict[type, Callable[..., tf.Tensor]] = {
    settings.Gamma: _gamma,
    settings.Brightness: _per_modality(intensity.draw_brightness, intensity.add_brightness),
    settings.Scaling: _per_modality(intensity.draw_scaling, intensity.scale_intensity),
    settings.Contrast: _contrast,
    settings.GaussianNoise: lambda t, image, _, seed: intensity.add_gaussian_noise(
        image, intensity.draw_gaussian_noise(seed, t)
    ),
    settings.RicianNoise: lambda t, image, _, seed: intensity.add_rician_noise(
        image, intensity.draw_rician_noise(seed, t)
    ),
    settings.Blur: _per_modality(draw_blur, blur),
    settings.LowResolution: _per_modality(draw_low_resolution, lower_resolution),
    settings.BiasField: _bias_field,
    settings.Ghosting: _ghosting,
    settings.ChannelDropout: _per_modality(intensity.draw_channel_dropout, intensity.drop_channels),
    settings.ChannelCopy: _channel_copy,
    settings.CoarseDropout: lambda t, image, patch, seed: intensity.drop_boxes(
        image, intensity.draw_coarse_dropout(seed, patch.size, t)
    ),
}


def augment_batch(
    transforms: Sequence[Transform],
    images: tf.Tensor,
    masks: tf.Tensor,
    seeds: tf.Tensor,
    patch: Patch,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the images and masks of a batch, varied by what `TrainingBatches` has left out.

    Args:
        transforms: The transforms; those of the host are left out.
        images: (B, *size, C) float16.
        masks: (B, *size, K) uint8.
        seeds: (B, 2), of which each patch's is the one that it would have on the host.
        patch: The form of the patches.
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
