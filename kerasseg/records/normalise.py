"""Cropping to the brain and normalising, which every volume goes through before training."""

from collections.abc import Sequence

import numpy as np

from kerasseg.datasets.case import Box, bounding_box

EPSILON = 1e-8
"""Added to the standard deviation, so a constant channel becomes 0 and not NaN."""

PERCENTILES = (0.5, 99.5)
"""Percentiles of the voxels that are not 0, which become 0 and 1 in `to_unit`."""
LEAST = 2.0**-10
"""The darkest that `to_unit` gives to a voxel that is not 0, so that only air is exactly 0."""


def brain_mask(
    image: np.ndarray,
    label: np.ndarray | None = None,
    known: Box | None = None,
    signal: np.ndarray | None = None,
) -> tuple[Box, np.ndarray]:
    """Find the voxels with a signal in any channel, and the smallest box around them.

    A labelled voxel without a signal counts too: cropping must not lose truth. Returns the box, and
    the mask in it: bool, of the box's shape.

    Args:
        image: Intensities (D, H, W, C).
        label: Ids (D, H, W).
        known: A box outside which the image is known to be 0, so that nobody looks there.
        signal: Where in `known` any channel is not 0, bool of that box's shape.
    """
    search = known or tuple(slice(0, n) for n in image.shape[:3])
    if label is not None and known is not None:
        search = _union(known, bounding_box(label > 0))
    if known is not None and signal is not None and search == known:
        inside = signal.copy()
    else:
        # Channel by channel: a reduction over the short last axis takes three times as long.
        inside = np.zeros(image[search].shape[:3], bool)
        for channel in range(image.shape[-1]):
            inside |= image[(*search, channel)] != 0
    if label is not None:
        inside |= label[search] > 0
    tight = bounding_box(inside)
    d, h, w = (
        slice(outer.start + inner.start, outer.start + inner.stop)
        for outer, inner in zip(search, tight, strict=True)
    )
    return (d, h, w), inside[tight]


def z_score(
    image: np.ndarray, out: np.ndarray | None = None
) -> tuple[np.ndarray, list[float], list[float]]:
    """Z-score each channel of (..., C) over its non-zero voxels; zeros stay exactly 0.

    Returns the image, float32 or written into `out`, and mean and standard deviation per channel.
    """
    normalised = np.empty(image.shape, np.float32) if out is None else out
    means, deviations = [], []
    for channel in range(image.shape[-1]):
        values = image[..., channel].astype(np.float32)
        zeros = np.nonzero(values == 0)
        count = values.size - zeros[0].size
        mean = float(values.sum(dtype=np.float64)) / max(count, 1)
        # Zeros are no part of the sums; taking them out afterwards is faster than picking the rest.
        values -= np.float32(mean)
        rounding = mean - float(np.float32(mean))
        squares = float(np.square(values, dtype=np.float64).sum())
        squares -= zeros[0].size * float(np.float32(mean)) ** 2
        variance = squares / max(count, 1) - rounding**2
        deviation = max(variance, 0.0) ** 0.5
        values /= np.float32(deviation + EPSILON)
        values[zeros] = 0
        normalised[..., channel] = values
        means.append(mean)
        deviations.append(deviation)
    return normalised, means, deviations


def to_unit(image: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Scale each channel of (..., C) to [0, 1] between two percentiles; zeros stay exactly 0.

    The percentiles are those of the channel's voxels that are not 0, as for MR scans in MedSAM (Ma
    et al. 2024). Values beyond them are clipped. Returns float32, or what was written into `out`.
    """
    unit = np.empty(image.shape, np.float32) if out is None else out
    for channel in range(image.shape[-1]):
        values = image[..., channel].astype(np.float32)
        known = values[values != 0]
        low, high = (_percentile(known, q) for q in PERCENTILES) if known.size else (0.0, 1.0)
        scaled = (values - np.float32(low)) / np.float32(max(high - low, EPSILON))
        unit[..., channel] = np.where(values == 0, 0, np.clip(scaled, LEAST, 1))
    return unit


def _percentile(values: np.ndarray, percent: float) -> float:
    """Return a percentile, interpolated linearly; the same sum as in `serving.graph_volume`."""
    place = percent / 100 * (values.size - 1)
    low = int(place)
    high = min(low + 1, values.size - 1)
    ordered = np.partition(values, (low, high))
    return float(ordered[low]) + (float(ordered[high]) - float(ordered[low])) * (place - low)


def fill_background(
    normalised: np.ndarray,
    image: np.ndarray,
    lowest: Sequence[float],
    means: Sequence[float],
    deviations: Sequence[float],
) -> np.ndarray:
    """Give the voxels of a z-scored image that are 0 its darkest value, in place.

    That is for scans that are not skull-stripped: there 0 is no tissue of mean intensity, which a
    z-score of 0 would make of it, but the darkest of the background. Returns the darkest z-scores
    (C,) float32, which stand for all that is outside of the scan.

    Args:
        normalised: The z-scores (..., C) of `z_score`.
        image: The intensities (..., C).
        lowest: The lowest intensity (C,) of the whole scan.
        means: Those of `z_score`.
        deviations: Likewise.
    """
    darkest = np.empty(len(lowest), np.float32)
    for channel, (low, mean, deviation) in enumerate(zip(lowest, means, deviations, strict=True)):
        # In the precision and the order of `z_score`, so that the darkest voxels are equal to it.
        value = (np.float32(low) - np.float32(mean)) / np.float32(deviation + EPSILON)
        normalised[..., channel][image[..., channel] == 0] = value
        darkest[channel] = value
    return darkest


def normalise(
    image: np.ndarray, box: Box, *, skull_stripped: bool, normalisation: str = "z_score"
) -> np.ndarray:
    """Return a scan (D, H, W, C) normalised, float32 rounded to float16 as a store's values are.

    Outside of `box` it is 0. Air stays 0 if the scan is skull-stripped, else its z-score is the
    darkest value (`fill_background`). `normalisation` is the setting `data.normalisation`.
    """
    result = np.zeros(image.shape, np.float32)
    if normalisation == "percentiles":  # air is 0 and the darkest value anyway
        result[box] = to_unit(image[box]).astype(np.float16)
        return result
    inner, means, deviations = z_score(image[box])
    if skull_stripped:
        result[box] = inner.astype(np.float16)
        return result
    result[box] = inner
    fill_background(result, image, image.min(axis=(0, 1, 2)), means, deviations)
    return result.astype(np.float16).astype(np.float32)


def _union(first: Box, second: Box) -> Box:
    """Return the smallest box that holds both; an empty box adds nothing."""
    boxes = [box for box in (first, second) if all(s.stop > s.start for s in box)]
    if len(boxes) < 2:
        return boxes[0] if boxes else first
    d, h, w = (
        slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(*boxes, strict=True)
    )
    return d, h, w
