"""Embeddings of slices by a frozen image encoder, computed once and kept beside the store."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, product
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasseg.config.augment import transforms_of
from kerasseg.config.experiment import Experiment
from kerasseg.errors import UserError
from kerasseg.files import atomic_write, file_lock, make_folder, require_space, write_json
from kerasseg.pipeline.augment.compose import augment
from kerasseg.pipeline.augment.patch import Patch
from kerasseg.pipeline.cut import cut
from kerasseg.pipeline.records import Record, TableSizes, parse_record
from kerasseg.pipeline.sampling import padding
from kerasseg.progress import track
from kerasseg.records.manifest import fingerprint
from kerasseg.records.store import RecordStore
from kerasseg.records.tfrecord import FRAMING_BYTES, read_record, write_record

_BATCH = 4
"""Slices that go through the encoder at a time."""
_COPIES = 2
"""Stream of the run's seed, beside those of training and validation."""


class EmbeddingStore:
    """Embeddings (n, n, C) float16 of every slice of some cases, a TFRecord file for each case.

    Where slices are augmented, the embeddings of all slices as they are come first, then those of
    each augmented copy, all of them followed by the label (h, w) uint8 of the slice as it was
    augmented.

    They lie in a folder beside the store that is named after all that changes them: the encoder's
    weights and sizes, the precision, the normalisation, the data, and how slices are cut. Cases
    that are there already are kept, so a computation that was stopped goes on. Raises `UserError`
    if the disk is too small; nothing was computed then.

    Args:
        encoder: Maps slices (B, h, w, C) to embeddings (B, n, n, C').
        experiment: Says how slices are cut.
        case_ids: The cases whose slices are to be there.
    """

    def __init__(
        self,
        encoder: keras.Model,
        experiment: Experiment,
        store: RecordStore,
        case_ids: Sequence[str],
    ) -> None:
        self._store = store
        self._settings = experiment.pipeline
        self._patch = Patch.of(experiment.pipeline, len(experiment.data.modalities))
        self._sizes = TableSizes.of(store.rows.values())
        self.shape = tuple(encoder.output.shape[1:])
        self._embedding_bytes = 2 * int(np.prod(self.shape))
        self.copies = experiment.model.sam.embedding_copies
        labels = int(np.prod(self._patch.size)) if self.copies > 1 else 0
        self._bytes = self._embedding_bytes + labels
        self._transforms = transforms_of(experiment.augment)
        self._seed = tf.constant([experiment.run.seed, _COPIES])
        key = _key(encoder, experiment, store)
        root = store.root.with_name(f"{store.root.name}.embeddings")
        self.folder = root / fingerprint(key)
        self._numbers = {case_id: number for number, case_id in enumerate(store.rows)}
        self._paths = {c: self.folder / f"case-{self._numbers[c]:06d}.tfrecord" for c in case_ids}
        with file_lock(root / ".lock", "computes embeddings", "records.root"):
            make_folder(self.folder, "records.root")
            known = self.folder / "embeddings.json"
            if not known.exists():
                write_json(known, key, "records.root")
            elif json.loads(known.read_text(encoding="utf-8")) != key:
                raise UserError(
                    f"{known} names other weights, data or slices than those that its folder is "
                    "for: remove the folder, and its embeddings are computed anew."
                )
            self._compute(encoder, [c for c in case_ids if not self._paths[c].exists()])

    def _compute(self, encoder: keras.Model, missing: list[str]) -> None:
        total = sum(self._slices(case_id) for case_id in missing) * self.copies
        needed = total * (self._bytes + FRAMING_BYTES)
        what = f"the embeddings of {total} slices need"
        remedy = "name another disk with records.root, or set model.sam.embeddings=false."
        require_space(self.folder, needed, what, remedy)
        if not missing:
            return
        forward = tf.function(
            lambda image: encoder(image, training=False),
            input_signature=[tf.TensorSpec((None, *self._patch.size, encoder.inputs[0].shape[-1]))],
            autograph=False,
        )
        said = f"Embedding {total} slices once ({needed / 1e9:.2g} GB in {self.folder})"
        rows = track(self._embedded(forward, missing), total, said)
        for case_id, of_case in groupby(rows, lambda row: row[0]):
            path = self._paths[case_id]
            with atomic_write(path, "records.root") as temporary, temporary.open("wb") as file:
                for _, record in of_case:
                    write_record(file, record)

    def _embedded(
        self, forward: Callable[[tf.Tensor], tf.Tensor], case_ids: list[str]
    ) -> Iterator[tuple[str, bytes]]:
        for case_id in case_ids:
            row = self._store.rows[case_id]
            payload = read_record(self._store.root / row.shard, row.offset, case_id)
            record = parse_record(tf.constant(payload), self._patch.modalities, self._sizes)
            own_seed = tf.random.fold_in(self._seed, self._numbers[case_id])
            places = list(product(range(self.copies), range(self._slices(case_id))))
            for first in range(0, len(places), _BATCH):
                parts = [self._slice(record, *p, own_seed) for p in places[first : first + _BATCH]]
                images, labels = zip(*parts, strict=True)
                found = forward(tf.cast(tf.stack(images), tf.float32)).numpy()
                for embedding, label in zip(found, labels, strict=True):
                    bits = embedding.astype("<f2").tobytes()
                    yield case_id, bits + (label.numpy().tobytes() if self.copies > 1 else b"")

    def _slice(
        self, record: Record, copy: int, index: int, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return a slice (h, w, C) as `draw_slice` gives it where a patch is whole, and its label.

        Copy 0 is the slice as it is.
        """
        inside = tf.gather(record.voxels.shape, self._patch.inside)
        start = tf.unstack(-padding(inside, self._patch.size))
        assert self._patch.across is not None
        start.insert(self._patch.across, tf.constant(index))
        if not copy:
            return cut(record.voxels, tf.stack(start), self._patch)
        own, background = tf.random.fold_in(seed, copy * 2**16 + index), record.voxels.values[0]
        parts = cut(record.voxels, tf.stack(start), self._patch, self._transforms, own)
        return augment(self._transforms, *parts, self._patch, own, background=background)

    def _slices(self, case_id: str) -> int:
        assert self._patch.across is not None
        return self._store.rows[case_id].shape[self._patch.across]

    def reader(self, case_ids: Sequence[str]) -> Callable[[tf.Tensor, tf.Tensor], tf.data.Dataset]:
        """Return a function for the graph: place in `case_ids`, place in its file -> data set.

        Slice i of copy k of a case of N slices is at place k N + i. The data set is of its
        embedding and, where there are copies, its label.
        """
        paths = tf.constant([str(self._paths[case_id]) for case_id in case_ids])
        length = self._bytes + FRAMING_BYTES

        def decode(data: tf.Tensor) -> tuple[tf.Tensor, ...]:
            bits = tf.strings.substr(data, 0, self._embedding_bytes)
            embedding = tf.reshape(tf.io.decode_raw(bits, tf.float16), self.shape)
            if self.copies == 1:
                return (embedding,)
            bits = tf.strings.substr(data, self._embedding_bytes, -1)
            return embedding, tf.reshape(tf.io.decode_raw(bits, tf.uint8), self._patch.size)

        def read(case: tf.Tensor, index: tf.Tensor) -> tf.data.Dataset:
            record = tf.data.experimental.from_variant(
                tf.raw_ops.TFRecordDatasetV2(
                    filenames=paths[case : case + 1],
                    compression_type="",
                    buffer_size=tf.constant(length, tf.int64),
                    byte_offsets=tf.cast(index, tf.int64)[tf.newaxis] * length,
                ),
                tf.TensorSpec([], tf.string),
            )
            return record.take(1).map(decode)

        return read


def open_embeddings(
    experiment: Experiment, network: keras.Model, store: RecordStore, case_ids: Sequence[str]
) -> EmbeddingStore | None:
    """Compute the embeddings that are missing, if `model.sam.embeddings` asks for them.

    Returns the store; None where slices must go through the encoder in every step, as it is
    trained, slices are augmented, or a patch is not a whole slice. Raises `UserError` if they are
    asked for, and cannot be used; or the disk is too small.
    """
    settings = experiment.model.sam
    if experiment.model.network != "sam" or settings.embeddings is False:
        return None
    reason = _why_not(experiment, store, case_ids)
    if reason is None:
        encoder = keras.Model(network.inputs[0], network.get_layer("bottleneck").output)
        return EmbeddingStore(encoder, experiment, store, case_ids)
    if settings.embeddings or settings.embedding_copies > 1:
        asked = "embeddings=true" if settings.embeddings else "embedding_copies"
        raise UserError(f"model.sam.{asked}, but {reason}, or leave it out.")
    return None


def _why_not(experiment: Experiment, store: RecordStore, case_ids: Sequence[str]) -> str | None:
    """Say why slices have no embedding of their own, and what to do about it."""
    settings, pipeline = experiment.model.sam, experiment.pipeline
    if settings.lora_rank or settings.trained_blocks:
        return "the encoder is trained: set model.sam.lora_rank=0 and trained_blocks=0"
    if transforms_of(experiment.augment) and settings.embedding_copies == 1:
        return "slices are augmented: set augment.preset=none, or embedding_copies above 1"
    patch = Patch.of(pipeline, len(experiment.data.modalities))
    largest = [max(store.rows[c].shape[axis] for c in case_ids) for axis in patch.inside]
    if any(size > limit for size, limit in zip(largest, patch.size, strict=True)):
        return (
            f"slices of up to {largest} are cut to pipeline.patch_size {list(patch.size)}: make "
            "patches as large as slices"
        )
    return None


def _key(encoder: keras.Model, experiment: Experiment, store: RecordStore) -> dict[str, Any]:
    """Return all that changes an embedding."""
    digest = hashlib.sha256()
    for value in encoder.get_weights():
        digest.update(np.ascontiguousarray(value).tobytes())
    sam, pipeline = experiment.model.sam, experiment.pipeline
    copies: dict[str, Any] = {}
    if sam.embedding_copies > 1:  # else the folder is that of a store without any
        copies = {"copies": sam.embedding_copies, "seed": experiment.run.seed}
        copies["augment"] = experiment.augment.model_dump(mode="json")
    return copies | {
        "encoder": sam.encoder,
        "side": experiment.model.stride,
        "weights": digest.hexdigest(),
        "precision": encoder.get_layer("image_encoder").compute_dtype,
        "normalisation": experiment.data.normalisation,
        "store": store.manifest.fingerprint,
        "data": store.manifest.data_fingerprint,
        "axis": pipeline.slices.axis,
        "patch_size": list(pipeline.patch_size),
    }
