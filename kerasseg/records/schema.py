"""What one record holds, and how a `Case` becomes one and comes back.

| feature | kind | content |
|---|---|---|
| case_id, patient_id | bytes | |
| modalities | bytes list | the C channels in order |
| image | bytes | (D, H, W, C) float16 little-endian: brain box, z-scored, background 0 |
| label | bytes | (D, H, W) uint8 canonical ids |
| shape | int64 x 4 | D, H, W, C of the box |
| full_shape | int64 x 3 | D, H, W before the crop |
| offset | int64 x 3 | first voxel of the box in the full volume |
| spacing | float x 3 | mm along D, H, W |
| affine | bytes | 4 x 4 float64 little-endian, full-volume (d, h, w, 1) -> RAS mm |
| mean, std | float x C | intensities over non-zero voxels before the z-score |
| foreground_<class> | bytes | (N, 3) int16 little-endian box coordinates of voxels of that class |
"""

import zlib
from dataclasses import dataclass

import numpy as np

from kerasseg import anatomy
from kerasseg.datasets.case import Case
from kerasseg.records import example
from kerasseg.records.normalise import brain_box, z_score

FORMAT = 1
"""Raised when a store of an older version can no longer be read."""

FOREGROUND_KEYS = tuple(f"foreground_{name}" for name in anatomy.SUBREGIONS)


@dataclass
class StoredCase:
    """A record in memory.

    `case` is cropped to the brain and z-scored; `offset` and `full_shape` place it in the volume
    it was cut from, whose grid `case.affine` still describes.
    """

    case: Case
    offset: tuple[int, int, int]
    full_shape: tuple[int, int, int]


@dataclass
class EncodedCase:
    """A record's bytes, and what the manifest says of it."""

    payload: bytes
    shape: tuple[int, ...]
    full_shape: tuple[int, ...]
    offset: tuple[int, ...]
    voxels: dict[str, int]
    mean: list[float]
    std: list[float]


def encode(case: Case, foreground_voxels: int) -> EncodedCase:
    """Crop, normalise and serialize a labelled case.

    Keeps up to `foreground_voxels` coordinates per class, drawn without replacement from a seed
    that depends on the case id alone.
    """
    if case.label is None:
        raise ValueError(f"{case.case_id} has no label")
    box = brain_box(case.image, case.label)
    label = np.ascontiguousarray(case.label[box])
    image, mean, std = z_score(case.image[box])
    offset = tuple(s.start for s in box)
    features: dict[str, list[bytes] | list[float] | list[int]] = {
        "case_id": [case.case_id.encode()],
        "patient_id": [case.patient_id.encode()],
        "modalities": [m.encode() for m in case.modalities],
        "image": [image.astype("<f2").tobytes()],
        "label": [label.tobytes()],
        "shape": list(image.shape),
        "full_shape": list(case.image.shape[:3]),
        "offset": list(offset),
        "spacing": [float(v) for v in case.spacing],
        "affine": [np.asarray(case.affine, "<f8").tobytes()],
        "mean": mean,
        "std": std,
    }
    rng = np.random.default_rng(zlib.crc32(case.case_id.encode()))
    voxels = {}
    for (name, class_id), key in zip(anatomy.SUBREGIONS.items(), FOREGROUND_KEYS, strict=True):
        flat = np.flatnonzero(label == class_id)
        voxels[name] = int(flat.size)
        if flat.size > foreground_voxels:
            flat = np.sort(rng.choice(flat, foreground_voxels, replace=False))
        coordinates = np.stack(np.unravel_index(flat, label.shape), axis=-1)
        features[key] = [coordinates.astype("<i2").tobytes()]
    return EncodedCase(
        payload=example.serialize(features),
        shape=image.shape,
        full_shape=case.image.shape[:3],
        offset=offset,
        voxels=voxels,
        mean=mean,
        std=std,
    )


def decode(payload: bytes) -> StoredCase:
    """The inverse of `encode`, up to the crop and float16; the image comes back as float32."""
    features = example.parse(payload)
    shape = tuple(features["shape"])
    image = np.frombuffer(features["image"][0], "<f2").reshape(shape).astype(np.float32)
    label = np.frombuffer(features["label"][0], np.uint8).reshape(shape[:3])
    d, h, w = features["spacing"]
    case = Case(
        case_id=features["case_id"][0].decode(),
        patient_id=features["patient_id"][0].decode(),
        image=image,
        label=label,
        spacing=(d, h, w),
        affine=np.frombuffer(features["affine"][0], "<f8").reshape(4, 4),
        modalities=tuple(m.decode() for m in features["modalities"]),
    )
    offset, full = features["offset"], features["full_shape"]
    return StoredCase(case, (offset[0], offset[1], offset[2]), (full[0], full[1], full[2]))
