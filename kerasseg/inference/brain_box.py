"""The box of a volume outside of which there is nothing to segment."""

import numpy as np

from kerasseg.datasets.case import Box


def brain_box(volume: np.ndarray) -> Box:
    """Smallest box around the voxels of (D, H, W, C) that are not 0 in every channel.

    Empty, (0:0, 0:0, 0:0), where all are 0. Goes plane by plane, so that it takes no memory to
    speak of.
    """
    depth, height, width = (np.zeros(n, bool) for n in volume.shape[:3])
    for index, plane in enumerate(volume):
        signal = plane != 0
        rows = signal.any(axis=(1, 2))
        depth[index] = rows.any()
        if depth[index]:
            height |= rows
            width |= signal.any(axis=0).any(axis=-1)
    places = [np.flatnonzero(hits) for hits in (depth, height, width)]
    d, h, w = (slice(int(p[0]), int(p[-1]) + 1) if p.size else slice(0, 0) for p in places)
    return d, h, w
