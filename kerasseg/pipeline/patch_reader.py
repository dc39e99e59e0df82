"""Records of a store -> patches, in the graph."""

from collections.abc import Sequence

import tensorflow as tf

from kerasseg import anatomy
from kerasseg.config.augment import Transform
from kerasseg.config.experiment import PipelineSettings
from kerasseg.pipeline.augment.compose import ANYWHERE, HOST, augment
from kerasseg.pipeline.augment.patch import Patch
from kerasseg.pipeline.cut import target_masks
from kerasseg.pipeline.record_cache import DiskCache, MemoryCache, RecordCache
from kerasseg.pipeline.records import Record, TableSizes, parse_record
from kerasseg.pipeline.sampling import draw_patch, draw_slice
from kerasseg.records.store import RecordStore

_AUGMENT = 1 << 20
"""Stream of a patch's seed that augmentation draws from; where it lies takes the first few."""
_READ_BUFFER_BYTES = 8 << 20
_READ_AHEAD = 2
"""Records read at the same time; each is a whole case of up to 30 MB."""


class PatchReader:
    """Slots (case index, seed) -> patches of the case.

    Image (*size, C) float16 and target (*size, K) uint8; with `augment_later` what the device is to
    do is left out, and its seed (2,) follows as a third.
    """

    def __init__(
        self,
        store: RecordStore,
        case_ids: Sequence[str],
        settings: PipelineSettings,
        target: str,
        transforms: Sequence[Transform] = (),
        cache: RecordCache = None,
        augment_later: bool = False,
    ) -> None:
        located = cache if isinstance(cache, DiskCache) else store
        paths, offsets = located.locate(case_ids)
        self._cached = cache.reader(case_ids) if isinstance(cache, MemoryCache) else None
        self._augment_later = augment_later
        self._channels = len(store.manifest.settings["data.modalities"])
        self._paths = tf.constant(paths)
        self._offsets = tf.constant(offsets, tf.int64)
        self._settings = settings
        self._target = target
        self._transforms = tuple(transforms)
        self._patch = Patch.of(settings, self._channels)
        self._sizes = TableSizes.of(store.rows.values())

    @tf.autograph.experimental.do_not_convert  # there is nothing to: it takes seconds
    def patches(self, slots: tf.data.Dataset, count: int, volumes: int) -> tf.data.Dataset:
        """`count` patches of each slot.

        The patches of `volumes` consecutive slots take turns.
        """
        records = self.records(slots)
        # What waits for its turn is what is smaller: a volume rather than all its patches, the
        # slices rather than the volume.
        if len(self._settings.patch_size) == 3:
            turns = records.interleave(
                lambda record, seed: tf.data.Dataset.from_tensor_slices(seeds_of(seed, count)).map(
                    lambda patch_seed: (record, patch_seed)
                ),
                cycle_length=volumes,
                block_length=1,
            )
            return turns.map(self._draw, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        slices = records.map(
            lambda record, seed: self._draw_all(record, seeds_of(seed, count)),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        return slices.interleave(
            lambda *parts: tf.data.Dataset.from_tensor_slices(parts),
            cycle_length=volumes,
            block_length=1,
        )

    def records(self, slots: tf.data.Dataset) -> tf.data.Dataset:
        """The record and the seed of each slot."""
        cached = self._cached
        if cached is not None:
            return slots.map(
                lambda index, seed: (cached(index), seed),
                num_parallel_calls=tf.data.AUTOTUNE,
                deterministic=True,
            )
        return self.serialized(slots).map(
            lambda serialized, seed: (parse_record(serialized, self._channels, self._sizes), seed),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

    def serialized(self, slots: tf.data.Dataset) -> tf.data.Dataset:
        """The bytes of the record and the seed of each slot."""
        return slots.interleave(
            self._read,
            cycle_length=_READ_AHEAD,
            block_length=1,
            num_parallel_calls=_READ_AHEAD,
            deterministic=True,
        )

    def _draw(self, record: Record, seed: tf.Tensor) -> tuple[tf.Tensor, ...]:
        draw = draw_patch if len(self._settings.patch_size) == 3 else draw_slice
        image, label = draw(record, self._settings, seed, self._transforms)
        own = tf.random.fold_in(seed, _AUGMENT)
        where = HOST if self._augment_later else ANYWHERE
        image, label = augment(self._transforms, image, label, self._patch, own, where)
        masks = target_masks(label, self._target)
        return (image, masks, own) if self._augment_later else (image, masks)

    def _draw_all(self, record: Record, seeds: tf.Tensor) -> tuple[tf.Tensor, ...]:
        size, channels = self._settings.patch_size, self._patch.channel_count
        classes = len(anatomy.TARGETS[self._target])
        own = [seeds[0]] if self._augment_later else []
        return tf.map_fn(
            lambda seed: self._draw(record, seed),
            seeds,
            fn_output_signature=(
                tf.TensorSpec([*size, channels], tf.float16),
                tf.TensorSpec([*size, classes], tf.uint8),
                *(tf.TensorSpec(part.shape, part.dtype) for part in own),
            ),
        )

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


def seeds_of(seed: tf.Tensor, count: int) -> tf.Tensor:
    """`count` seeds (count, 2) out of one."""
    return tf.map_fn(lambda i: tf.random.fold_in(seed, i), tf.range(count))
