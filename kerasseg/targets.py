"""Conversions between labels, probabilities and the masks of a target.

A label (...) holds canonical ids (`anatomy.LABELS`). Masks (..., K) hold one boolean per channel of
`anatomy.TARGETS[target]`. `docs/targets.md` has the rules in one table.
"""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Final

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
"""Target -> channel -> the id it writes into a label; later channels overwrite earlier ones."""


def label_to_masks(label: np.ndarray, target: str) -> np.ndarray:
    """Canonical ids (...) -> masks (..., K) bool: 1 where a voxel's id belongs to a channel.

    Of `labels` and `subregions` at most one channel holds; of `regions` WT holds wherever TC does
    and TC wherever ET does; `binary` holds wherever there is tumour of any kind. Raises
    `ValueError` for an id that is not in `anatomy.LABELS`.
    """
    if label.size and (label.min() < 0 or label.max() >= len(anatomy.LABELS)):
        raise ValueError(
            f"a label holds ids from {label.min()} to {label.max()}, but canonical ids are "
            f"0 to {len(anatomy.LABELS) - 1}"
        )
    channels = anatomy.TARGETS[target].values()
    return np.array([[i in ids for ids in channels] for i in anatomy.LABELS])[label]


def probabilities_to_masks(
    probabilities: np.ndarray, target: str, threshold: float | Sequence[float] = 0.5
) -> np.ndarray:
    """Probabilities (..., K) -> masks (..., K) bool.

    A softmax target holds in its most probable channel only (the first of equals), whatever the
    threshold. Each channel of a sigmoid target holds from the threshold on, which is one for all or
    one for each.
    """
    _check_channels(probabilities, target)
    if anatomy.ACTIVATIONS[target] == "softmax":
        channels = np.arange(probabilities.shape[-1])
        return probabilities.argmax(axis=-1)[..., np.newaxis] == channels
    return probabilities >= np.asarray(threshold, probabilities.dtype)


def masks_to_label(masks: np.ndarray, target: str) -> np.ndarray:
    """Masks (..., K) -> one canonical id per voxel (...) uint8.

    labels      the id of the channel. Of masks that are not one-hot: as `subregions`
    subregions  the id of the channel; where several hold, the innermost: ET over NCR over ED
    regions     WT writes ED, then TC writes NCR, then ET writes ET, as BraTS and nnU-Net do. So TC
                without WT counts as core, and ET without TC as enhancing tumour
    binary      `anatomy.TUMOUR`: tumour of any kind, not NCR

    Where no channel, or the background alone, holds: background.
    """
    _check_channels(masks, target)
    label = np.full(masks.shape[:-1], anatomy.BACKGROUND, np.uint8)
    channels = list(anatomy.TARGETS[target])
    for name, written in WRITES[target].items():
        label[masks[..., channels.index(name)].astype(bool)] = written
    return label


def air_probabilities(target: str) -> list[float]:
    """The K probabilities of what is background for certain: 1 of the background of a softmax
    target, 0 of every channel of a sigmoid target."""
    softmax = anatomy.ACTIVATIONS[target] == "softmax"
    channels = anatomy.TARGETS[target].values()
    return [float(softmax and anatomy.BACKGROUND in ids) for ids in channels]


def convert_masks(masks: np.ndarray, source: str, target: str) -> np.ndarray:
    """Masks (..., K) of the target `source` -> masks (..., K') bool of another.

    They go through `masks_to_label`, which makes regions the unions of sub-regions (WT = NCR or ED
    or ET, TC = NCR or ET), sub-regions the differences of regions (ED = WT without TC, NCR = TC
    without ET), and whole tumour whatever has tumour in any channel. Masks of `source` itself
    stay as they are. Raises `ValueError` from `binary` to any other: sub-regions cannot be told
    from the whole.
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
