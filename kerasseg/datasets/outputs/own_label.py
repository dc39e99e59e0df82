"""Canonical labels -> those of a data set."""

from collections.abc import Mapping

import numpy as np


def own_label(label: np.ndarray, ids: Mapping[int, int]) -> np.ndarray:
    """A label of canonical ids with a data set's own, `ids` canonical -> own; the smallest unsigned
    dtype that holds them."""
    table = np.zeros(max(ids) + 1, np.min_scalar_type(max(ids.values())))
    for canonical, own in ids.items():
        table[canonical] = own
    return table[label]
