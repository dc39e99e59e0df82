"""Records in the graph, and the dense volumes that they stand for."""

import numpy as np
import tensorflow as tf

from kerasseg.datasets.case import Case
from kerasseg.pipeline.records import Record, TableSizes, parse_record
from kerasseg.records.schema import decode, encode

SIZES = TableSizes(bytes=800, rows=6100)
"""Room for every case of these tests, so that functions are compiled once."""


def record_and_volumes(
    case: Case,
    compression: str = "none",
    foreground_voxels: int = 1000,
    *,
    skull_stripped: bool = True,
) -> tuple[Record, np.ndarray, np.ndarray]:
    """The parsed record, and image (D, H, W, C) float32 and label (D, H, W) out of `decode`."""
    payload = encode(case, foreground_voxels, compression, skull_stripped=skull_stripped).payload
    stored = decode(payload).case
    assert stored.label is not None
    record = parse_record(tf.constant(payload), case.image.shape[-1], SIZES)
    return record, stored.image, stored.label


def dense_crop(volume: np.ndarray, start: list[int], size: list[int]) -> np.ndarray:
    """A box out of a dense volume, voxel by voxel; zeros where it reaches over the edge."""
    crop = np.zeros((*size, *volume.shape[3:]), volume.dtype)
    for place in np.ndindex(*size):
        voxel = tuple(s + p for s, p in zip(start, place, strict=True))
        if all(0 <= v < n for v, n in zip(voxel, volume.shape, strict=False)):
            crop[place] = volume[voxel]
    return crop
