"""Caches of records: in memory, decoded, or unpacked in a folder."""

import fcntl
import os
import re
import shutil
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil
import tensorflow as tf

from kerasseg.config.experiment import PipelineSettings
from kerasseg.errors import UserError, storage_error
from kerasseg.files import atomic_write, file_lock, require_space
from kerasseg.pipeline.records import Record, TableSizes, filled, parse_record
from kerasseg.progress import track
from kerasseg.records import tfrecord as example
from kerasseg.records.store import RecordStore
from kerasseg.records.tfrecord import FRAMING_BYTES, read_record, write_record

_LEAST_FREE = 0.1
"""Share of the available memory that a cache leaves to everything else."""
_ALIGNMENT = 64
"""Bytes; TensorFlow takes over arrays that are so aligned without a copy."""

_CACHE_ROOT = "pipeline.cache_root"
_STORE_NAME = "store.txt"
"""File in the folder of a cache that names its store, and is locked while the cache is read."""
_VERSION_NAME = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}")


class MemoryCache:
    """The decoded records of some cases, in memory.

    Raises `UserError` if they do not fit; nothing was read then.
    """

    def __init__(self, store: RecordStore, case_ids: Sequence[str]) -> None:
        case_ids = tuple(dict.fromkeys(case_ids))
        self._channels = len(store.manifest.settings["data.modalities"])
        self._sizes = TableSizes.of(store.rows.values())
        self.places = {case_id: place for place, case_id in enumerate(case_ids)}
        _check_memory(sum(_decoded_bytes(store, case_id) for case_id in case_ids), len(case_ids))
        self._records = []
        for case_id in track(case_ids, len(case_ids), f"Caching {len(case_ids)} cases in memory"):
            row = store.rows[case_id]
            payload = read_record(store.root / row.shard, row.offset, case_id)
            record = parse_record(tf.constant(payload), self._channels)
            self._records.append([_aligned(part) for part in tf.nest.flatten(record)])
        self._types = [part.dtype for part in tf.nest.flatten(record)]
        self._form = record

    def reader(self, case_ids: Sequence[str]) -> Callable[[tf.Tensor], Record]:
        """Return a function for the graph: index in `case_ids` -> record.

        Records are filled up as `parse_record` does.
        """
        places = tf.constant([self.places[case_id] for case_id in case_ids])

        def read(index: tf.Tensor) -> Record:
            # Stateful, tf.data would call it for one case at a time under op determinism.
            parts = tf.numpy_function(
                lambda place: self._records[place], [places[index]], self._types, stateful=False
            )
            for part, known in zip(parts, tf.nest.flatten(self._form), strict=True):
                part.set_shape([None, *known.shape[1:]])
            return filled(tf.nest.pack_sequence_as(self._form, parts), self._sizes)

        return read


class DiskCache:
    """Unpacked copies of the records of some cases, a file each.

    They help where the store is compressed or lies on a slow disk. Copies that are there already
    are kept; those of older versions of the store are removed unless a process still reads them.
    `root` is the folder of caches; this store's version has a folder of its own in it. Raises
    `UserError` if the disk is too small; nothing was written then.
    """

    def __init__(self, store: RecordStore, case_ids: Sequence[str], root: Path) -> None:
        manifest = store.manifest
        self.folder = root / f"{manifest.data_fingerprint}-{manifest.fingerprint}"
        numbers = {case_id: number for number, case_id in enumerate(store.rows)}
        self._paths = {c: self.folder / f"case-{numbers[c]:06d}.tfrecord" for c in case_ids}
        is_whole = all(path.exists() for path in self._paths.values())
        if is_whole and not os.access(root, os.W_OK):
            return  # somebody else's copies, to be read only: there is nothing to lock or remove
        with file_lock(root / ".lock", "fills this cache", _CACHE_ROOT):
            try:
                self.folder.mkdir(exist_ok=True)
                file = (self.folder / _STORE_NAME).open("w", encoding="utf-8")
                # Open, and so locked, as long as this object lives: nobody removes the copies.
                weakref.finalize(self, file.close)
                file.write(str(store.root.resolve()))
                file.flush()
                fcntl.flock(file, fcntl.LOCK_SH)
                _remove_older_versions(store, root, self.folder)
            except OSError as error:
                raise storage_error(error, f"Writing {self.folder}", _CACHE_ROOT) from error
            self._copy(store)

    def _copy(self, store: RecordStore) -> None:
        missing = [case_id for case_id, path in self._paths.items() if not path.exists()]
        require_space(
            self.folder,
            sum(_decoded_bytes(store, case_id) for case_id in missing),
            f"pipeline.cache=disk needs for {len(missing)} cases",
            "name another disk with pipeline.cache_root, or use pipeline.cache=none.",
        )
        described = f"Caching {len(missing)} cases in {self.folder}"
        for case_id in track(missing, len(missing), described) if missing else ():
            row = store.rows[case_id]
            payload = unpacked(read_record(store.root / row.shard, row.offset, case_id))
            with (
                atomic_write(self._paths[case_id], _CACHE_ROOT) as temporary,
                temporary.open("wb") as file,
            ):
                write_record(file, payload)

    def locate(self, case_ids: Sequence[str]) -> tuple[list[str], list[int]]:
        """Return the files and byte offsets of the cases' records."""
        return [str(self._paths[case_id]) for case_id in case_ids], [0] * len(case_ids)

    def check_records(self) -> None:
        """Read every copy again. Raises `UserError` that names a damaged one."""
        for case_id, path in self._paths.items():
            try:
                read_record(path, 0, case_id)
            except UserError:
                raise UserError(
                    f"{path}: this copy of the record of case {case_id} (pipeline.cache=disk) is "
                    "damaged or gone: delete it, it is made again from the store."
                ) from None


RecordCache = MemoryCache | DiskCache | None


def open_cache(
    settings: PipelineSettings, store: RecordStore, case_ids: Sequence[str]
) -> RecordCache:
    """Make the cache that `pipeline.cache` asks for, filled with these cases."""
    if settings.cache == "memory":
        return MemoryCache(store, case_ids)
    if settings.cache == "disk":
        return DiskCache(store, case_ids, settings.cache_root or _default_root(store))
    return None


def _default_root(store: RecordStore) -> Path:
    return store.root.with_name(f"{store.root.name}.cache")


def _remove_older_versions(store: RecordStore, root: Path, current: Path) -> None:
    """Remove the copies of what `store` held before, unless a process still reads them.

    The caller holds the lock of `root`. One `root` may hold caches of many stores: only those that
    name this store are its own, or those that name none in the folder that is this store's alone.
    """
    for folder in root.iterdir():
        if folder == current or not _VERSION_NAME.fullmatch(folder.name):
            continue
        try:
            with (folder / _STORE_NAME).open("r+", encoding="utf-8") as file:
                if file.read() == str(store.root.resolve()):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while it is read
                    shutil.rmtree(folder)
        except FileNotFoundError:
            if root == _default_root(store):
                shutil.rmtree(folder)
        except BlockingIOError:
            continue


def unpacked(payload: bytes) -> bytes:
    """Return the bytes of the same record without compression."""
    features = example.parse(payload)
    if features["compression"] == [b"none"]:
        return payload
    import zlib

    for key in ("values", "labels"):
        features[key] = [zlib.decompress(features[key][0])]
    features["compression"] = [b"none"]
    return example.serialize(features)


def _decoded_bytes(store: RecordStore, case_id: str) -> int:
    """Return the most bytes that a record takes in memory, or unpacked on the disk."""
    row = store.rows[case_id]
    d, h, w, channels = row.shape
    if row.stored_voxels is None and store.manifest.settings["records.compression"] == "none":
        voxels = row.payload_bytes
    else:
        voxels = row.stored_rows * (2 * channels + 1)
    mask = d * h * (-(-w // 8))
    limit = int(store.manifest.settings["records.foreground_voxels"])
    foreground = 12 * sum(min(count, limit) for count in row.voxels.values())
    return voxels + 5 * mask + foreground + 4 * d * h + 8 * (d + h + w) + FRAMING_BYTES


def _check_memory(needed: int, cases: int) -> None:
    available = psutil.virtual_memory().available
    if needed > available * (1 - _LEAST_FREE):
        raise UserError(
            f"pipeline.cache=memory needs {needed / 1e9:.1f} GB for the {cases} training and "
            f"validation cases, but {available / 1e9:.1f} GB of memory are available and training "
            "itself needs some: use pipeline.cache=disk or none."
        )


def _aligned(part: tf.Tensor) -> np.ndarray:
    """Copy a tensor to an array that begins at a multiple of `_ALIGNMENT`."""
    array = part.numpy()
    buffer = np.empty(array.nbytes + _ALIGNMENT, np.uint8)
    first = -buffer.ctypes.data % _ALIGNMENT
    aligned = buffer[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
    aligned[...] = array
    return aligned
