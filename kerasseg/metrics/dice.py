"""Dice of two masks."""

import numpy as np


def dice(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Dice coefficient 2 |T and P| / (|T| + |P|) of two boolean masks of one shape.

    Both empty: 1. One empty: 0 (the rule of BraTS).
    """
    total = int(np.count_nonzero(truth)) + int(np.count_nonzero(prediction))
    if total == 0:
        return 1.0
    return 2.0 * int(np.count_nonzero(truth & prediction)) / total
