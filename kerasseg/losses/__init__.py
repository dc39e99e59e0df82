"""Losses: pure functions on `keras.ops` and one Keras class over them; all sums are float32.

`SegmentationLoss({"dice": 1, "smooth": 2})` is a Keras loss; `functional.py` has the functions.
"""

from kerasseg.losses.functional import (
    boundary,
    cross_entropy,
    dice,
    focal,
    focal_tversky,
    generalised_dice,
    jaccard,
    top_k,
    tversky,
)
from kerasseg.losses.loss import SegmentationLoss

__all__ = [
    "SegmentationLoss",
    "boundary",
    "cross_entropy",
    "dice",
    "focal",
    "focal_tversky",
    "generalised_dice",
    "jaccard",
    "top_k",
    "tversky",
]
