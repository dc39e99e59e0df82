"""Crop to the brain and z-score: what every volume goes through before a network sees it."""

import numpy as np

EPSILON = 1e-8
"""Added to the standard deviation, so a constant channel becomes 0 and not NaN."""


def brain_box(image: np.ndarray, label: np.ndarray | None = None) -> tuple[slice, slice, slice]:
    """Smallest box (D, H, W) that holds every voxel with a signal in any channel.

    A labelled voxel outside the brain is kept inside the box too: cropping must not lose truth.
    """
    inside = np.any(image, axis=-1)
    if label is not None:
        inside |= label > 0
    box = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        hit = np.flatnonzero(np.any(inside, axis=others))
        box.append(slice(int(hit[0]), int(hit[-1]) + 1) if hit.size else slice(0, 0))
    return box[0], box[1], box[2]


def z_score(image: np.ndarray) -> tuple[np.ndarray, list[float], list[float]]:
    """Z-score each channel of (D, H, W, C) over its non-zero voxels; zeros stay exactly 0.

    Returns the float32 image, and mean and standard deviation per channel.
    """
    normalised = np.zeros(image.shape, np.float32)
    means, deviations = [], []
    for channel in range(image.shape[-1]):
        values = image[..., channel]
        brain = values != 0
        inside = values[brain]
        mean = float(inside.mean(dtype=np.float64)) if inside.size else 0.0
        deviation = float(inside.std(dtype=np.float64)) if inside.size else 0.0
        normalised[..., channel][brain] = (inside - mean) / (deviation + EPSILON)
        means.append(mean)
        deviations.append(deviation)
    return normalised, means, deviations
