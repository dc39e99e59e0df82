"""A list of Albumentations' transforms, applied to a slice."""

import threading
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from kerasseg.slice_transforms.build import build, import_albumentations

Terms = Sequence[Mapping[str, Mapping[str, Any]]]
"""Each the name of a transform with its arguments: [{HorizontalFlip: {p: 0.5}}]."""

_IN_Z_SCORES = frozenset({"ChannelDropout"})
"""Transforms of intensities that clip nothing and put a given number in: 0 is to be air."""


class SliceTransforms:
    """Image (H, W, C) of z-scores, air 0, and label (H, W) uint8 -> the same, varied.

    The result is a function of the seed. May be called from several threads: each has transforms
    of its own, because Albumentations keeps their random state in them.

    Geometric transforms and dropouts run on z-scores. Those of intensities are made for 0..1 and
    clip there: for them each modality of the slice is brought linearly from its minimum..maximum
    to 0..1 and back, and air stays 0.

    modalities: M; C is M, or M of each slice one after the other in 2.5-D, which share the
                minimum and the maximum

    Raises `ValueError` as `build` does.
    """

    def __init__(self, terms: Terms, modalities: int) -> None:
        self._terms = [(name, dict(options)) for term in terms for name, options in term.items()]
        self._modalities = modalities
        self._of_thread = threading.local()
        self._runs()

    def __call__(
        self, image: np.ndarray, label: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Image float32 and label; the ones given stay as they are. `seed` from 0 to 2**64 - 1."""
        image, label = np.array(image, np.float32, order="C"), np.array(label, order="C")
        number = 0
        for of_intensities, run in self._runs():
            # Compose.set_random_seed would give all of its transforms the same draws.
            for transform in run.transforms:
                transform.set_random_seed(number << 64 | seed)
                number += 1
            if of_intensities:
                image = self._in_unit_range(run, image)
            else:
                changed = run(image=image, mask=label)
                image, label = changed["image"], changed["mask"]
        return np.ascontiguousarray(image), np.ascontiguousarray(label)

    def _runs(self) -> list[tuple[bool, Any]]:
        """This thread's transforms; those of one kind that follow each other are one run."""
        if not hasattr(self._of_thread, "runs"):
            package = import_albumentations()
            transforms = [(name, build(name, options)) for name, options in self._terms]

            def of_intensities(item: tuple[str, Any]) -> bool:
                name, transform = item
                image_only = isinstance(transform, package.ImageOnlyTransform)
                return image_only and name not in _IN_Z_SCORES

            self._of_thread.runs = [
                (kind, package.Compose([transform for _, transform in run]))
                for kind, run in groupby(transforms, of_intensities)
            ]
        return self._of_thread.runs

    def _in_unit_range(self, run: Any, image: np.ndarray) -> np.ndarray:
        modalities = image.reshape(-1, self._modalities)
        copies = image.shape[-1] // self._modalities
        low = np.tile(modalities.min(axis=0), copies)
        span = np.tile(modalities.max(axis=0), copies) - low
        changed = run(image=(image - low) / np.where(span > 0, span, 1))["image"]
        return np.where(image == 0, np.float32(0), changed * span + low)
