"""Conversions between labels, probabilities and the masks of a target.

A label (...) holds canonical ids (`anatomy.LABELS`). Masks (..., K) hold one boolean per channel of
`anatomy.TARGETS[target]`. `docs/targets.md` has the rules in one table. `channel_masks` and
`label_from_channels` are shared with the graph of an exported model.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from kerasseg import anatomy

_INNERMOST_LAST: Final = MappingProxyType({"ED": anatomy.ED, "NCR": anatomy.NCR, "ET": anatomy.ET})

WRITES: Final = MappingProxyType(
    {
        "labels": _INNERMOST_LAST,
        "subregions": _INNERMOST_LAST,
        "regions": MappingProxyType({"WT": anatomy.ED, "TC": anatomy.NCR, "ET": anatomy.ET}),
        "binary": MappingProxyType({"tumour": anatomy.TUMOUR}),
    }
)
"""For each target, the id that each channel writes into a label, over what earlier ones wrote."""


def label_to_masks(label: np.ndarray, target: str) -> np.ndarray:
    """Return the masks (..., K) bool of canonical ids (...).

    In `labels` and `subregions` at most one channel holds; in `regions` WT holds wherever TC does
    and TC wherever ET does; `binary` holds wherever there is tumour of any kind. Raises
    `ValueError` if the label holds an id that is not in `anatomy.LABELS`.
    """
    if label.size and (label.min() < 0 or label.max() >= len(anatomy.LABELS)):
        raise ValueError(
            f"a label holds ids from {label.min()} to {label.max()}, but canonical ids are "
            f"0 to {len(anatomy.LABELS) - 1}"
        )
    channels = anatomy.TARGETS[target].values()
    return np.array([[i in ids for ids in channels] for i in anatomy.LABELS])[label]


def channel_masks(
    channels: Sequence[Any], target: str, thresholds: Sequence[float], maximum: Any
) -> Iterator[Any]:
    """Yield the mask of each channel of probabilities, K arrays or tensors of one shape.

    A softmax target holds in its most probable channel only (the first of equals), whatever the
    threshold; each channel of a sigmoid target holds from its threshold on. `maximum` is the
    library's function.
    """
    if anatomy.ACTIVATIONS[target] != "softmax":
        yield from (p >= limit for p, limit in zip(channels, thresholds, strict=True))
        return
    largest = functools.reduce(maximum, channels)
    mask = taken = channels[0] == largest
    yield mask
    for channel in channels[1:]:
        mask = (channel == largest) & ~taken
        taken = taken | mask
        yield mask


def probabilities_to_masks(
    probabilities: np.ndarray, target: str, threshold: float | Sequence[float] = 0.5
) -> np.ndarray:
    """Return the masks (..., K) bool of probabilities (..., K), see `channel_masks`.

    `threshold` is one for all channels or one for each.
    """
    _check_channels(probabilities, target)
    channels = [probabilities[..., index] for index in range(probabilities.shape[-1])]
    thresholds = np.broadcast_to(np.asarray(threshold, probabilities.dtype), len(channels))
    masks = np.empty(probabilities.shape, bool)
    for index, mask in enumerate(channel_masks(channels, target, list(thresholds), np.maximum)):
        masks[..., index] = mask
    return masks


def label_from_channels(
    channels: Sequence[Any], target: str, ids: Mapping[int, Any], label: Any, where: Any
) -> Any:
    """Return a label in which each of K masks, arrays or tensors, has written its value of `ids`.

    `label` is the background; `where` is the library's function. See `masks_to_label`.
    """
    names = list(anatomy.TARGETS[target])
    for name, written in WRITES[target].items():
        label = where(channels[names.index(name)], ids[written], label)
    return label


def masks_to_label(masks: np.ndarray, target: str) -> np.ndarray:
    """Return one canonical id per voxel (...) uint8 of masks (..., K).

    labels      the id of the channel; masks that are not one-hot are treated as `subregions`
    subregions  the id of the channel; where several hold, the innermost: ET over NCR over ED
    regions     WT writes ED, then TC writes NCR, then ET writes ET, as BraTS and nnU-Net do. So TC
                without WT counts as core, and ET without TC as enhancing tumour
    binary      `anatomy.TUMOUR`: tumour of any kind, not NCR

    A voxel in which no channel, or the background alone, holds is background.
    """
    _check_channels(masks, target)
    channels = [masks[..., index] for index in range(masks.shape[-1])]
    ids = {canonical: np.uint8(canonical) for canonical in anatomy.LABELS}
    background = np.full(masks.shape[:-1], anatomy.BACKGROUND, np.uint8)
    return np.asarray(label_from_channels(channels, target, ids, background, np.where))


def air_probabilities(target: str) -> list[float]:
    """Return the K probabilities of what is certainly background.

    They are 1 for the background of a softmax target, and 0 for all other channels.
    """
    softmax = anatomy.ACTIVATIONS[target] == "softmax"
    channels = anatomy.TARGETS[target].values()
    return [float(softmax and anatomy.BACKGROUND in ids) for ids in channels]


def convert_masks(masks: np.ndarray, source: str, target: str) -> np.ndarray:
    """Return masks (..., K) of the target `source` as masks (..., K') bool of another.

    They go through `masks_to_label`, which makes regions the unions of sub-regions (WT = NCR or ED
    or ET, TC = NCR or ET), sub-regions the differences of regions (ED = WT without TC, NCR = TC
    without ET), and whole tumour whatever has tumour in any channel. Masks of `source` itself stay
    as they are. Raises `ValueError` for `binary` as any other: sub-regions cannot be told from the
    whole.
    """
    if source == target:
        _check_channels(masks, target)
        return masks.astype(bool)
    if source == "binary":
        raise ValueError(
            f"masks of the target binary cannot become {target}: the whole tumour does not say "
            "which voxels are necrotic core, edema or enhancing"
        )
    return label_to_masks(masks_to_label(masks, source), target)


def _check_channels(values: np.ndarray, target: str) -> None:
    channels = anatomy.TARGETS[target]
    if values.ndim == 0 or values.shape[-1] != len(channels):
        raise ValueError(
            f"an array of shape {values.shape} does not have the {len(channels)} channel(s) of "
            f"the target {target} ({', '.join(channels)}) as its last axis"
        )
