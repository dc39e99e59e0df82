"""What the presets of `augment.preset` are made of."""

import math

from kerasseg.config.augment import (
    Albumentations,
    AugmentSettings,
    Blur,
    Brightness,
    Contrast,
    Flip,
    Gamma,
    GaussianNoise,
    LowResolution,
    Scaling,
    Spatial,
    Transform,
)

PRESETS: dict[str, tuple[Transform, ...]] = {
    "none": (),
    "light": (Flip(), Brightness(add=0.2, p=1.0)),
    # nnU-Net v2 (nnUNetTrainer.get_training_transforms), in its order.
    "nnunet": (
        Spatial(rotation=30.0, p_rotation=0.2, scale=(0.7, 1.4), p_scale=0.2),
        GaussianNoise(variance=(0.0, 0.1), p=0.1),
        Blur(sigma=(0.5, 1.0), p=0.2, p_channel=0.5),
        Scaling(factor=(0.75, 1.25), p=0.15),
        Contrast(factor=(0.75, 1.25), p=0.15),
        LowResolution(zoom=(0.5, 1.0), p=0.25, p_channel=0.5),
        Gamma(gamma=(0.7, 1.5), invert=True, p=0.1),
        Gamma(gamma=(0.7, 1.5), p=0.3),
        Flip(),
    ),
    "classic_2d": (
        Flip(axes=("width",)),
        Spatial(
            rotation=20.0,
            p_rotation=0.8,
            scale=(math.exp(-0.25), math.exp(0.25)),
            p_scale=0.8,
            stretch=0.08,
            shift=0.08,
            elastic=0.02,
            p_elastic=0.5,
        ),
        Gamma(gamma=(math.exp(-0.35), math.exp(0.35)), keep_moments=False, p=1.0),
        Scaling(factor=(0.8, 1.2), p=1.0),
        Brightness(add=0.2, p=1.0),
        GaussianNoise(variance=(0.0, 0.0225), p=0.3),
    ),
}


def transforms_of(settings: AugmentSettings) -> tuple[Transform, ...]:
    """The list that a config asks for, Albumentations' first."""
    first = (Albumentations(terms=settings.albumentations),) if settings.albumentations else ()
    if settings.transforms is not None:
        return (*first, *(term.transform for term in settings.transforms))
    return (*first, *PRESETS[settings.preset])
