"""Albumentations' transforms of slices: which there are, why not all, and a list of them applied.

`tests/slice_transforms/test_every_transform.py` tries all of the installed version.
"""

import difflib
import inspect
import json
import os
import threading
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from types import MappingProxyType, ModuleType
from typing import Any, Final

import numpy as np
from pydantic import ValidationError

from kerasseg import anatomy

_COLOURS = "it takes the channels for red, green and blue"
_BOXES = "it needs bounding boxes, and a patch has none"
_OTHERS = "it needs other images beside the patch"
_VOLUMES = "it is for volumes, and a patch of a 2-D network is a slice"
_UNIT = "it changes the unit of the intensities, which are z-scores"
_LISTS = "a list within the list is not offered: name its transforms, each with its p"

_REASONS = {
    _COLOURS: "ChromaticAberration HEStain HueSaturationValue ISONoise PlanckianJitter RGBShift "
    "RandomFog RandomGravel RandomRain RandomSnow RandomSunFlare Spatter ToGray ToRGB ToSepia",
    _BOXES: "AtLeastOneBBoxRandomCrop BBoxSafeRandomCrop RandomCropNearBBox "
    "RandomSizedBBoxSafeCrop",
    _OTHERS: "FDA HistogramMatching Mosaic OverlayElements PixelDistributionAdaptation",
    _VOLUMES: "CenterCrop3D CoarseDropout3D CubicSymmetry Pad3D PadIfNeeded3D RandomCrop3D",
    _UNIT: "FromFloat Normalize ToFloat",
    _LISTS: "Compose OneOf OneOrOther RandomOrder ReplayCompose SelectiveChannelTransform "
    "Sequential SomeOf",
    "it mixes up the modalities, which the network tells apart by their place": "ChannelShuffle",
    "it warns on every slice without tumour: use CoarseDropout": "ConstrainedCoarseDropout",
    "it takes one or three channels and makes values that are not finite: use ElasticTransform or "
    "GridDistortion": "GridElasticDeform",
    "it needs functions, which a config cannot hold": "Lambda",
    "it grows and shrinks labels by their number, the highest over the others": "Morphological",
    "it needs the file of a font": "TextImage",
}

REFUSED: Final = MappingProxyType(
    {name: reason for reason, names in _REASONS.items() for name in names.split()}
)
"""Name -> why not."""

ONE_CHANNEL: Final = frozenset({"CLAHE", "ColorJitter", "Equalize"})
"""Right for one channel; of three they take them for colours, and others they refuse."""

_OF_PYTORCH: Final = frozenset({"ToTensorV2", "ToTensor3D"})
"""Albumentations has them only where PyTorch happens to be installed."""

SETTING = "augment.albumentations"


@lru_cache(maxsize=1)
def import_albumentations() -> ModuleType:
    """The package, imported when it is first named. Raises `ValueError` where it is missing."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # otherwise its import asks the network
    try:
        import albumentations
        import cv2
    except ImportError as error:
        raise ValueError(
            f"{SETTING} needs Albumentations, which cannot be imported ({error}): "
            "pip install 'kerasseg[albumentations]'"
        ) from error
    # Slices are made side by side already: benchmarks/albumentations_threads.py.
    cv2.setNumThreads(0)
    return albumentations


def build(name: str, arguments: Mapping[str, Any]) -> Any:
    """Return the transform `name` with its arguments, such as HorizontalFlip with {p: 0.5}.

    Raises `ValueError` for one that does not exist or is not for slices of z-scores, and for an
    unknown or wrong argument: Albumentations itself only warns of an unknown one.
    """
    kind = _kind(name)
    known = [n for n in inspect.signature(kind).parameters if n != "strict"]
    for argument in arguments:
        if argument not in known:
            near = difflib.get_close_matches(argument, known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ValueError(
                f"{SETTING}: {name} has no argument {argument}.{hint} Known: {', '.join(known)}"
            )
    p = arguments.get("p", 0.5)
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1:
        raise ValueError(f"{SETTING}: {name}: p {p!r} must be a number from 0 to 1")
    if arguments.get("mask_interpolation", 0) != 0:
        raise ValueError(
            f"{SETTING}: {name}: mask_interpolation must be 0 (nearest): any other would make "
            "labels that nobody drew"
        )
    if arguments.get("fill_mask") not in (None, 0):
        raise ValueError(
            f"{SETTING}: {name}: fill_mask must be 0, the background: what is filled is no tumour"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that another transform is newer or faster
        try:
            return kind(**arguments)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{SETTING}: {name}: {_argument_errors(error)}") from error


def names() -> list[str]:
    """Return every transform that the installed version has, whatever else is installed."""
    package = import_albumentations()
    base = package.BasicTransform
    abstract = {base, package.DualTransform, package.ImageOnlyTransform, package.Transform3D}
    return sorted(
        name
        for name, kind in vars(package).items()
        if inspect.isclass(kind) and issubclass(kind, base) and kind not in abstract
        if name not in _OF_PYTORCH
    )


def _kind(name: str) -> Any:
    package = import_albumentations()
    if name in REFUSED:
        raise ValueError(f"{SETTING}: {name} cannot be used: {REFUSED[name]}")
    if name in _OF_PYTORCH:
        raise ValueError(f"{SETTING}: {name} cannot be used: it makes tensors of PyTorch")
    if name in (known := names()):
        return getattr(package, name)
    lower = {other.lower(): other for other in known}
    near = difflib.get_close_matches(name.lower().replace("_", ""), lower, n=1)
    hint = f"; the nearest is {lower[near[0]]}" if near else ""
    raise ValueError(
        f"{SETTING}: Albumentations {package.__version__} has no transform {name}{hint}"
    )


def _argument_errors(error: Exception) -> str:
    """Say which argument is wrong and why, without pydantic's addresses."""
    cause = error.__cause__
    if not isinstance(cause, ValidationError):
        return " ".join(str(error).split())
    found = []
    for mistake in cause.errors():
        message = mistake["msg"].removeprefix("Value error, ").replace("Input should", "should")
        place = ".".join(part for part in map(str, mistake["loc"]) if part.isidentifier())
        given = "" if mistake["type"] in ("missing", "value_error") else f" {mistake['input']!r}"
        found.append(f"{place}{given}: {message}" if place else message)
    return "; ".join(dict.fromkeys(found))


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
        self, image: np.ndarray, label: np.ndarray, seed: int, background: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the image, float32, and the label; the ones given stay as they are.

        Args:
            image: z-scores (H, W, C).
            label: (H, W) uint8.
            seed: from 0 to 2**64 - 1.
            background: values (M,) of the modalities where the slice is turned or shifted away, by
                default 0.
        """
        outside = np.zeros(1, np.float32)
        if background is not None:
            outside = np.tile(background, image.shape[-1] // self._modalities)
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
                # They fill with 0, so what is to be filled in is 0 for them.
                changed = run(image=image - outside, mask=label)
                image, label = changed["image"] + outside, changed["mask"]
        return np.ascontiguousarray(image), np.ascontiguousarray(label)

    def _runs(self) -> list[tuple[bool, Any]]:
        """Return this thread's transforms; those of one kind that follow each other are one run."""
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


_LABELS = ((0, 1, 3), (0, 2), (0,))
"""Ids of the labels that are tried in turn: what is put between two of them shows."""
_TRIALS = 12


def check_slice_transforms(
    terms: Terms, patch_size: Sequence[int], modalities: int, slices: int = 1
) -> None:
    """Raise `ValueError` for a transform that does not exist, has wrong arguments, or does
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
    """Return why a transform cannot be used, or "" if nothing was found."""
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
