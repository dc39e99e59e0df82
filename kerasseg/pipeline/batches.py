"""Patches of the store's cases as batches, stateless from a seed."""

from collections.abc import Sequence

import tensorflow as tf

from kerasseg.config import PipelineSettings
from kerasseg.pipeline.parse import parse_record
from kerasseg.pipeline.patches import cut_patch, sample_start
from kerasseg.pipeline.targets import subregions
from kerasseg.records.store import RecordStore

_TRAINING, _VALIDATION = 0, 1
_READ_BUFFER_BYTES = 8 << 20
_READ_AHEAD = 2
"""Records read at the same time; each is a whole case of up to 30 MB."""


class TrainingBatches:
    """Endless training batches: image (B, d, h, w, C) float16, target (B, d, h, w, 3) uint8.

    A batch takes its patches from `batch_size` different volumes; each volume, once decoded,
    gives `patches_per_volume` of them to consecutive batches. Every epoch shuffles all cases
    anew by (seed, epoch) and has exactly `steps_per_epoch` batches. Records are read at their
    offsets, so shuffling needs no buffer and memory does not grow with the number of cases.
    """

    def __init__(
        self,
        store: RecordStore,
        case_ids: Sequence[str],
        settings: PipelineSettings,
        *,
        batch_size: int,
        seed: int,
        steps_per_epoch: int | None = None,
        steps_multiple: int = 1,
    ) -> None:
        self.case_ids = tuple(case_ids)
        self.batch_size = batch_size
        self.settings = settings
        per_volume = settings.patches_per_volume
        default = -(-len(self.case_ids) // batch_size) * per_volume
        self.steps_per_epoch = steps_per_epoch or -(-default // steps_multiple) * steps_multiple
        self._groups = -(-self.steps_per_epoch // per_volume)
        self._seed = tf.constant([seed, _TRAINING])
        self._reader = _Reader(store, case_ids)

    def dataset(self, first_epoch: int = 0) -> tf.data.Dataset:
        """All batches from epoch `first_epoch` (counted from 0) on, without end."""
        per_volume = self.settings.patches_per_volume
        slots = tf.data.Dataset.range(first_epoch, tf.int64.max).flat_map(
            lambda epoch: tf.data.Dataset.from_tensor_slices(self._slots(epoch))
        )
        volumes = self._reader.patches(slots, self.settings, per_volume)
        groups = volumes.batch(self.batch_size, drop_remainder=True)
        batches = groups.flat_map(
            lambda image, label: tf.data.Dataset.range(per_volume).map(
                lambda index: (image[:, index], label[:, index])
            )
        )
        surplus = self._groups * per_volume - self.steps_per_epoch
        if surplus:
            of_epoch = self._groups * per_volume
            batches = batches.enumerate().filter(
                lambda index, _: index % of_epoch < self.steps_per_epoch
            )
            batches = batches.map(lambda _, batch: batch)
        return _finish(batches, self.settings.prefetch, tf.data.INFINITE_CARDINALITY)

    def batch_case_ids(self, epoch: int, step: int) -> list[str]:
        """The cases in batch `step` of `epoch`, both counted from 0."""
        indices, _ = self._slots(tf.constant(epoch, tf.int64))
        first = step // self.settings.patches_per_volume * self.batch_size
        return [self.case_ids[i] for i in indices.numpy()[first : first + self.batch_size]]

    def _slots(self, epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The volumes of an epoch in order: case index (N,) and a seed for each (N, 2)."""
        count, cases = self._groups * self.batch_size, len(self.case_ids)
        epoch_seed = tf.random.fold_in(self._seed, tf.cast(epoch, tf.int32))
        rounds = [
            tf.random.experimental.stateless_shuffle(
                tf.range(cases), tf.random.fold_in(epoch_seed, round_index)
            )
            for round_index in range(-(-count // cases))
        ]
        seeds = _seeds(tf.random.fold_in(epoch_seed, -1), count)
        return tf.concat(rounds, axis=0)[:count], seeds


def validation_batches(
    store: RecordStore,
    case_ids: Sequence[str],
    settings: PipelineSettings,
    *,
    batch_size: int,
    seed: int,
) -> tf.data.Dataset:
    """Fixed patches of every case, the same each time it is iterated; the last batch may be short.

    Image (B, d, h, w, C) float16, target (B, d, h, w, 3) uint8.
    """
    count = len(case_ids)
    slots = (tf.range(count), _seeds(tf.constant([seed, _VALIDATION]), count))
    volumes = _Reader(store, case_ids).patches(
        tf.data.Dataset.from_tensor_slices(slots),
        settings,
        settings.validation_patches_per_volume,
    )
    patches = count * settings.validation_patches_per_volume
    return _finish(
        volumes.unbatch().batch(batch_size), settings.prefetch, -(-patches // batch_size)
    )


class _Reader:
    """Slots (case index, seed) -> that many patches of the case."""

    def __init__(self, store: RecordStore, case_ids: Sequence[str]) -> None:
        paths, offsets = store.locate(case_ids)
        self._channels = len(store.manifest.settings["data.modalities"])
        self._paths = tf.constant(paths)
        self._offsets = tf.constant(offsets, tf.int64)

    def patches(
        self, slots: tf.data.Dataset, settings: PipelineSettings, count: int
    ) -> tf.data.Dataset:
        """Image (count, d, h, w, C) float16 and label (count, d, h, w) uint8 per slot, in order."""
        records = slots.interleave(
            self._read,
            cycle_length=_READ_AHEAD,
            block_length=1,
            num_parallel_calls=_READ_AHEAD,
            deterministic=True,
        )

        def cut(serialized: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            image, label, foreground = parse_record(serialized, self._channels)
            starts = [
                sample_start(
                    tf.shape(label),
                    foreground,
                    settings.patch_size,
                    settings.tumour_share,
                    tf.random.fold_in(seed, index),
                )
                for index in range(count)
            ]
            return (
                tf.stack([cut_patch(image, start, settings.patch_size) for start in starts]),
                tf.stack([cut_patch(label, start, settings.patch_size) for start in starts]),
            )

        return records.map(cut, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def _read(self, index: tf.Tensor, seed: tf.Tensor) -> tf.data.Dataset:
        # The public TFRecordDataset starts at a file's head; the op beneath can start at a record.
        record = tf.data.experimental.from_variant(
            tf.raw_ops.TFRecordDatasetV2(
                filenames=self._paths[index : index + 1],
                compression_type="",
                buffer_size=tf.constant(_READ_BUFFER_BYTES, tf.int64),
                byte_offsets=self._offsets[index : index + 1],
            ),
            tf.TensorSpec([], tf.string),
        )
        return record.take(1).map(lambda serialized: (serialized, seed))


def _seeds(seed: tf.Tensor, count: int) -> tf.Tensor:
    return tf.map_fn(lambda i: tf.random.fold_in(seed, i), tf.range(count))


def _finish(batches: tf.data.Dataset, prefetch: int, cardinality: int) -> tf.data.Dataset:
    targets = batches.map(
        lambda image, label: (image, subregions(label)), num_parallel_calls=tf.data.AUTOTUNE
    )
    options = tf.data.Options()
    options.deterministic = True
    counted = targets.apply(tf.data.experimental.assert_cardinality(cardinality))
    return counted.prefetch(prefetch).with_options(options)
