"""The features of a record, and the conversion of a `Case` to a record and back.

Only voxels of the brain are stored: those of the brain box (D, H, W) that have a value other than
0 in any channel, or a label. There are n of them, in row-major order; voxel 0 is background, so
that an index of 0 means "not stored". Its values are 0, or the darkest ones of a scan that is not
skull-stripped, whose box is the whole volume.

| feature | kind | content |
|---|---|---|
| case_id, patient_id | bytes | |
| classes | bytes | what the labels tell apart, a key of `anatomy.CLASSES` |
| modalities | bytes list | the C channels in order |
| attributes | bytes | what else is known of the case, a JSON object |
| mask | bytes | (D, H, ceil(W / 8)) bits, the lowest first: is the voxel stored? |
| row_start | bytes | (D, H) int32: voxels stored before this row |
| compression | bytes | how `values` and `labels` are packed: none or zlib |
| values | bytes | (n + 1, C) float16, z-scored; the first row is background |
| labels | bytes | (n + 1,) uint8 canonical ids; the first is 0 |
| shape | int64 x 4 | D, H, W, C of the box |
| full_shape | int64 x 3 | D, H, W before the crop |
| offset | int64 x 3 | first voxel of the box in the full volume |
| spacing | float x 3 | mm along D, H, W |
| affine | bytes | 4 x 4 float64, full-volume (d, h, w, 1) -> RAS mm |
| file_shape, file_affine | int64 x 3, bytes | the input file's own grid: (x, y, z) -> RAS mm |
| mean, std | float x C | intensities over non-zero voxels before the z-score |
| foreground_<id> | bytes | (N, 3) int16 box coordinates of voxels of that id |
| brain_voxels, tumour_voxels | bytes | (D + H + W,) int32: how many each slice of each axis has |

All numbers in bytes are little-endian.
"""

import hashlib
import json
import zlib
from dataclasses import dataclass

import numpy as np

from kerasseg import anatomy
from kerasseg.datasets.case import Case, Grid, bounding_box
from kerasseg.errors import UserError
from kerasseg.records import tfrecord as example
from kerasseg.records.normalise import brain_mask, fill_background, to_unit, z_score

FORMAT = 2
"""Raised when a store of an older version can no longer be read."""

FOREGROUND_KEYS = tuple(f"foreground_{class_id}" for class_id in anatomy.SUBREGIONS.values())

_ZLIB_LEVEL = 1
"""Higher levels take longer and save nothing: the low bits of the values are noise."""


@dataclass
class StoredCase:
    """A record in memory.

    `case` is cropped to the brain and z-scored; `offset` and `full_shape` place it in the volume
    it was cut from, whose grid `case.affine` still describes. `background` (C,) are the values of
    air and of all that is outside of the box.
    """

    case: Case
    offset: tuple[int, int, int]
    full_shape: tuple[int, int, int]
    background: np.ndarray


@dataclass
class EncodedCase:
    """A record's bytes, and what the manifest says about it.

    `voxels` counts the voxels of each class by name. `voxel_hash` is that of the image alone:
    two cases that have it in common are the same scan under two names.
    """

    payload: bytes
    shape: tuple[int, ...]
    full_shape: tuple[int, ...]
    offset: tuple[int, ...]
    voxels: dict[str, int]
    mean: list[float]
    std: list[float]
    voxel_hash: str
    stored_voxels: int


def encode(
    case: Case,
    foreground_voxels: int,
    compression: str = "none",
    *,
    skull_stripped: bool = True,
    normalisation: str = "z_score",
) -> EncodedCase:
    """Crop, normalise and serialize a labelled case; `compression` is none or zlib.

    `normalisation` is z_score or percentiles (`records.normalise`).

    A case that is not `skull_stripped` is not cropped: what is 0 in it belongs to the picture.

    Keeps up to `foreground_voxels` coordinates per class, drawn without replacement from a seed
    that depends on the case id alone.
    """
    if case.label is None:
        raise ValueError(f"{case.case_id} has no label")
    box, mask = brain_mask(case.image, case.label, case.box, case.signal)
    if not skull_stripped:
        brain, mask = mask, np.zeros(case.image.shape[:3], bool)
        mask[box] = brain
        box = (slice(None), slice(None), slice(None))
    stored = np.flatnonzero(mask)
    channels = case.image.shape[-1]
    shape = (*mask.shape, channels)
    raw = _voxels_at(case.image[box], mask)
    values = np.zeros((stored.size + 1, channels), "<f2")
    _, mean, std = z_score(raw, out=values[1:])
    if normalisation == "percentiles":  # mean and deviation stay those of the intensities
        to_unit(raw, out=values[1:])
    elif not skull_stripped:
        lowest = case.image.min(axis=(0, 1, 2))
        values[0] = fill_background(values[1:], raw, lowest, mean, std)
    label = np.ascontiguousarray(case.label[box])
    labels = np.zeros(stored.size + 1, np.uint8)
    labels[1:] = label.ravel().take(stored)
    in_row = np.count_nonzero(mask, axis=-1)
    row_start = np.cumsum(in_row).reshape(in_row.shape) - in_row
    offset = tuple(s.start or 0 for s in box)
    features: dict[str, list[bytes] | list[float] | list[int]] = {
        "case_id": [case.case_id.encode()],
        "patient_id": [case.patient_id.encode()],
        "classes": [case.classes.encode()],
        "modalities": [m.encode() for m in case.modalities],
        "attributes": [json.dumps(case.attributes, sort_keys=True).encode()],
        "mask": [np.packbits(mask, axis=-1, bitorder="little").tobytes()],
        "row_start": [row_start.astype("<i4").tobytes()],
        "compression": [compression.encode()],
        "values": [_pack(values.tobytes(), compression)],
        "labels": [_pack(labels.tobytes(), compression)],
        "shape": list(shape),
        "full_shape": list(case.image.shape[:3]),
        "offset": list(offset),
        "spacing": [float(v) for v in case.spacing],
        "affine": [np.asarray(case.affine, "<f8").tobytes()],
        "file_shape": [int(n) for n in case.grid.shape],
        "file_affine": [np.asarray(case.grid.affine, "<f8").tobytes()],
        "mean": mean,
        "std": std,
        "brain_voxels": [_slice_voxels(mask)],
        "tumour_voxels": [_slice_voxels(label > 0)],
    }
    if max(mask.shape) > np.iinfo(np.int16).max:
        raise UserError(
            f"{case.case_id}: has {mask.shape} voxels, expected at most {np.iinfo(np.int16).max} "
            "along an axis: cut it, or make it smaller with data.size or data.spacing."
        )
    rng = np.random.default_rng(zlib.crc32(case.case_id.encode()))
    counts = {}
    for class_id, key in zip(anatomy.SUBREGIONS.values(), FOREGROUND_KEYS, strict=True):
        flat = stored[labels[1:] == class_id]
        counts[class_id] = int(flat.size)
        if flat.size > foreground_voxels:
            flat = np.sort(rng.choice(flat, foreground_voxels, replace=False))
        coordinates = np.stack(np.unravel_index(flat, mask.shape), axis=-1)
        features[key] = [coordinates.astype("<i2").tobytes()]
    labelled = np.flatnonzero(labels[1:])
    without_signal = labelled[~raw[labelled].any(axis=-1)]
    return EncodedCase(
        payload=example.serialize(features),
        shape=shape,
        full_shape=case.image.shape[:3],
        offset=offset,
        voxels={name: counts[i] for name, i in anatomy.CLASSES[case.classes].items()},
        mean=mean,
        std=std,
        voxel_hash=_voxel_hash(mask, values, stored, without_signal),
        stored_voxels=int(stored.size),
    )


def decode(payload: bytes) -> StoredCase:
    """Invert `encode`, up to the crop and float16; the image comes back as float32."""
    features = example.parse(payload)
    *box, channels = features["shape"]
    bits = np.frombuffer(features["mask"][0], np.uint8).reshape(*box[:2], -(-box[2] // 8))
    mask = np.unpackbits(bits, axis=-1, count=box[2], bitorder="little").astype(bool)
    compression = features["compression"][0].decode()
    values = np.frombuffer(_unpack(features["values"][0], compression), "<f2")
    labels = np.frombuffer(_unpack(features["labels"][0], compression), np.uint8)
    values = values.reshape(-1, channels).astype(np.float32)
    image = np.empty((*box, channels), np.float32)
    image[...] = values[0]
    image[mask] = values[1:]
    label = np.zeros(box, np.uint8)
    label[mask] = labels[1:]
    d, h, w = features["spacing"]
    x, y, z = features["file_shape"]
    case = Case(
        case_id=features["case_id"][0].decode(),
        patient_id=features["patient_id"][0].decode(),
        image=image,
        label=label,
        spacing=(d, h, w),
        affine=np.frombuffer(features["affine"][0], "<f8").reshape(4, 4),
        modalities=tuple(m.decode() for m in features["modalities"]),
        grid=Grid((x, y, z), np.frombuffer(features["file_affine"][0], "<f8").reshape(4, 4)),
        classes=features["classes"][0].decode(),
        attributes=json.loads(features["attributes"][0]),
    )
    offset, full = features["offset"], features["full_shape"]
    return StoredCase(
        case, (offset[0], offset[1], offset[2]), (full[0], full[1], full[2]), values[0].copy()
    )


def _voxels_at(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the voxels (n, C) of (D, H, W, C) where `mask` (D, H, W) is true."""
    if image.strides[-1] != image.itemsize:
        image = np.ascontiguousarray(image)
    # All channels of a voxel as one item: several times as fast as picking rows of numbers.
    item = np.dtype((np.void, image.shape[-1] * image.itemsize))
    return image.view(item)[..., 0][mask].view(image.dtype).reshape(-1, image.shape[-1])


def _slice_voxels(mask: np.ndarray) -> bytes:
    """Count the true voxels of every slice along each axis of (D, H, W), axis after axis."""
    counts = [mask.sum(axis=others, dtype="<i4") for others in ((1, 2), (0, 2), (0, 1))]
    return np.concatenate(counts).tobytes()


def _voxel_hash(
    mask: np.ndarray, values: np.ndarray, stored: np.ndarray, without_signal: np.ndarray
) -> str:
    """Hash shape, mask and values, without the voxels that are stored for their label only."""
    if without_signal.size:
        mask = mask.copy()
        mask.flat[stored[without_signal]] = False
        mask = mask[bounding_box(mask)]
        values = np.delete(values, without_signal + 1, axis=0)
    digest = hashlib.sha256(np.asarray([*mask.shape, values.shape[-1]], "<i8").tobytes())
    digest.update(np.packbits(mask, axis=-1, bitorder="little").tobytes())
    digest.update(values.tobytes())
    return digest.hexdigest()[:32]


def _pack(data: bytes, compression: str) -> bytes:
    return zlib.compress(data, _ZLIB_LEVEL) if compression == "zlib" else data


def _unpack(data: bytes, compression: str) -> bytes:
    return zlib.decompress(data) if compression == "zlib" else data
