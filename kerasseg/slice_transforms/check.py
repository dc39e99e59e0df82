"""Whether a list of Albumentations' transforms suits the patches, tried on some."""

import json
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from kerasseg import anatomy
from kerasseg.slice_transforms.build import SETTING, build
from kerasseg.slice_transforms.refused import ONE_CHANNEL
from kerasseg.slice_transforms.slice_transforms import SliceTransforms, Terms

_LABELS = ((0, 1, 3), (0, 2), (0,))
"""Ids of the labels that are tried in turn: what is put between two of them shows."""
_TRIALS = 12


def check_slice_transforms(
    terms: Terms, patch_size: Sequence[int], modalities: int, slices: int = 1
) -> None:
    """Raises `ValueError` for a transform that does not exist, has wrong arguments, or does
    something to slices (*patch_size, slices * modalities) that training does not stand.

    Every transform is tried by itself on a few random slices.
    """
    _check(json.dumps(list(map(dict, terms))), tuple(patch_size), modalities, slices)


@lru_cache(maxsize=8)
def _check(terms: str, patch_size: tuple[int, ...], modalities: int, slices: int) -> None:
    for term in json.loads(terms):
        if len(term) != 1:
            raise ValueError(
                f"each entry of {SETTING} names one transform, found {list(term) or 'none'}: "
                "write - HorizontalFlip: {} for one with its defaults"
            )
        ((name, arguments),) = term.items()
        build(name, arguments)
        if name in ONE_CHANNEL and modalities * slices > 1:
            raise ValueError(
                f"{SETTING}: {name} is for patches of one channel, but these have "
                f"{modalities * slices}, which it would take for colours"
            )
        reason = _try(name, arguments, patch_size, modalities, slices)
        if reason:
            raise ValueError(f"{SETTING}: {name} cannot be used: {reason}")


def _try(
    name: str, arguments: dict[str, Any], patch_size: tuple[int, ...], modalities: int, slices: int
) -> str:
    """Why not; empty if nothing was found."""
    always = SliceTransforms([{name: {**arguments, "p": 1.0}}], modalities)
    random = np.random.default_rng(0)
    air = np.ones(patch_size, bool)
    air[tuple(slice(n // 8, n - n // 8) for n in patch_size)] = False
    for trial in range(_TRIALS):
        image = random.normal(size=(*patch_size, modalities * slices)).astype(np.float32)
        image[air] = 0
        ids = _LABELS[trial % len(_LABELS)]
        label = np.where(air, 0, random.choice(ids, patch_size)).astype(np.uint8)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                changed, moved = always(image, label, trial)
        except Exception as error:  # whatever Albumentations and OpenCV raise
            words = " ".join(str(error).split())
            return f"on slices {image.shape} of z-scores it raises {type(error).__name__}: {words}"
        if changed.shape != image.shape or moved.shape != label.shape:
            return (
                f"it makes {list(moved.shape)} of a patch of {list(patch_size)}, and a batch needs "
                "patches of one size, pipeline.patch_size"
            )
        if not np.isfinite(changed).all():
            return "it makes values that are not finite"
        if changed.max() > 0 and changed.min() >= 0 and changed.max() <= 1:
            return "it clips intensities to 0..1, and these are z-scores"
        new = sorted(set(np.unique(moved).tolist()) - set(ids))
        if new:
            name = anatomy.LABELS.get(new[0], "no class")
            return f"it puts the label {new[0]} ({name}) into a patch that does not have it"
    return ""
