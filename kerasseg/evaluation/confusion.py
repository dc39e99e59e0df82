"""Which class was taken for which, voxel by voxel."""

import numpy as np

from kerasseg import anatomy
from kerasseg.targets import label_to_masks, masks_to_label


def confusion_classes(target: str) -> tuple[str, ...]:
    """The classes that exclude each other: background and what a label can hold."""
    if target == "binary":
        return ("background", "tumour")
    return tuple(anatomy.LABELS.values())


def confusion_matrix(truth: np.ndarray, masks: np.ndarray, target: str) -> np.ndarray:
    """Voxels (true class, predicted class) of labels (D, H, W) and masks (D, H, W, K), as int64.

    Masks become one label per voxel first, as `targets.masks_to_label` does it.
    """
    predicted = masks_to_label(masks, target)
    if target == "binary":
        truth = label_to_masks(truth, "binary")[..., 0]
    number = len(confusion_classes(target))
    pairs = truth.astype(np.int64).ravel() * number + predicted.ravel()
    return np.bincount(pairs, minlength=number**2).reshape(number, number)
