"""Batches of patches out of a store, each a function of seed, epoch and position."""

from collections.abc import Sequence

import tensorflow as tf

from kerasseg import anatomy
from kerasseg.config.augment import Transform
from kerasseg.config.experiment import PipelineSettings
from kerasseg.pipeline.augment.compose import ANYWHERE, HOST, augment
from kerasseg.pipeline.augment.patch import Patch
from kerasseg.pipeline.cut import target_masks
from kerasseg.pipeline.embeddings import EmbeddingStore
from kerasseg.pipeline.record_cache import DiskCache, MemoryCache, RecordCache
from kerasseg.pipeline.records import Record, TableSizes, parse_record
from kerasseg.pipeline.sampling import draw_patch, draw_slice, first_of_slice, pick
from kerasseg.records.store import RecordStore

_TRAINING, _VALIDATION = 0, 1
"""Streams of the run's seed."""
_AUGMENT = 1 << 20
"""Stream of a patch's seed that augmentation draws from; where it lies takes the first few."""
_COPY = 1 << 21
"""Stream of a slice's seed that chooses one of its augmented copies."""
_READ_BUFFER_BYTES = 8 << 20
_READ_AHEAD = 2
"""Records read at the same time; each is a whole case of up to 30 MB."""


class TrainingBatches:
    """Endless training batches: image (B, d, h, w, C) float16, target (B, d, h, w, K) uint8.

    With a patch size of two numbers they are slices, without d. The K channels are those of
    `anatomy.TARGETS[target]`.

    A batch takes its patches from `batch_size` different volumes; each volume, once decoded,
    gives `patches_per_volume` of them to consecutive batches, or the few that are left of the
    epoch. Every epoch shuffles all cases anew by (seed, epoch) and has exactly `steps_per_epoch`
    batches. Records are read at their offsets, so shuffling needs no buffer and memory does not
    grow with the number of cases.

    Args:
        store: The store that the cases lie in.
        case_ids: The training cases.
        settings: Section `pipeline`.
        target: What is predicted, a key of `anatomy.TARGETS`.
        batch_size: Patches B in a batch of all workers together.
        seed: Seed of shuffling, sampling and augmentation.
        steps_per_epoch: Batches in an epoch; None: as many as hold `patches_per_volume` patches
            of every case.
        steps_multiple: A number that the default of `steps_per_epoch` is rounded up to.
        transforms: Augmentations of each patch (`pipeline/augment/compose.py`).
        worker: Number of this worker, from 0.
        workers: How many workers share every batch. Each gets its part (B / workers, …) and reads
            no other volumes; their parts side by side are the batch of a single worker.
        cache: Where records are read from instead of the store.
        augment_later: Leave the augmentations that the device can do to it (`augment_batch`); a
            third tensor (B, 2) has their seeds.
        embeddings: Where embeddings (B, n, n, C) of slices are read, which then stand in the
            place of images.
    """

    def __init__(
        self,
        store: RecordStore,
        case_ids: Sequence[str],
        settings: PipelineSettings,
        *,
        target: str,
        batch_size: int,
        seed: int,
        steps_per_epoch: int | None = None,
        steps_multiple: int = 1,
        transforms: Sequence[Transform] = (),
        worker: int = 0,
        workers: int = 1,
        cache: RecordCache = None,
        augment_later: bool = False,
        embeddings: EmbeddingStore | None = None,
    ) -> None:
        if batch_size % workers:
            raise ValueError(f"batch_size {batch_size} cannot be shared by {workers} workers")
        self.case_ids = tuple(case_ids)
        self.batch_size = batch_size
        self._share = batch_size // workers
        self._worker = worker
        self.settings = settings
        per_volume = settings.patches_per_volume
        default = -(-len(self.case_ids) * per_volume // batch_size)
        self.steps_per_epoch = steps_per_epoch or -(-default // steps_multiple) * steps_multiple
        self._groups = -(-self.steps_per_epoch // per_volume)
        self._seed = tf.constant([seed, _TRAINING])
        self._reader = PatchReader(
            store, case_ids, settings, target, transforms, cache, augment_later, embeddings
        )

    @tf.autograph.experimental.do_not_convert
    def dataset(self, first_epoch: int = 0, first_batch: int = 0) -> tf.data.Dataset:
        """Return all batches from batch `first_batch` of epoch `first_epoch` on, without end.

        Both are counted from 0.
        """
        per_volume = self.settings.patches_per_volume
        skipped_groups = first_batch // per_volume
        slots = tf.data.Dataset.range(first_epoch, tf.int64.max).flat_map(
            lambda epoch: tf.data.Dataset.from_tensor_slices(self._own_slots(epoch))
        )
        slots = slots.skip(skipped_groups * self._share)  # before anything is read
        patches = self._reader.patches(slots, volumes=self._share)
        batches = patches.batch(self._share, drop_remainder=True).skip(first_batch % per_volume)
        return _finish(batches, self.settings.prefetch, tf.data.INFINITE_CARDINALITY)

    def batch_case_ids(self, epoch: int, step: int) -> list[str]:
        """Return the cases in batch `step` of `epoch`, both counted from 0."""
        indices, *_ = self._slots(tf.constant(epoch, tf.int64))
        first = step // self.settings.patches_per_volume * self.batch_size
        return [self.case_ids[i] for i in indices.numpy()[first : first + self.batch_size]]

    def _own_slots(self, epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return this worker's part of `_slots`."""
        start = self._worker * self._share

        def own(slots: tf.Tensor, *rest: int) -> tf.Tensor:
            groups = tf.reshape(slots, [self._groups, self.batch_size, *rest])
            return tf.reshape(groups[:, start : start + self._share], [-1, *rest])

        indices, seeds, counts = self._slots(epoch)
        return own(indices), own(seeds, 2), own(counts)

    def _slots(self, epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return the volumes of an epoch in order: case index (N,), seed (N, 2), patches (N,)."""
        count, cases = self._groups * self.batch_size, len(self.case_ids)
        epoch_seed = tf.random.fold_in(self._seed, tf.cast(epoch, tf.int32))
        rounds = [
            tf.random.experimental.stateless_shuffle(
                tf.range(cases), tf.random.fold_in(epoch_seed, round_index)
            )
            for round_index in range(-(-count // cases))
        ]
        seeds = seeds_of(tf.random.fold_in(epoch_seed, -1), count)
        per_volume = self.settings.patches_per_volume
        left = self.steps_per_epoch - per_volume * tf.range(self._groups)
        counts = tf.repeat(tf.minimum(left, per_volume), self.batch_size)
        return tf.concat(rounds, axis=0)[:count], seeds, counts


@tf.autograph.experimental.do_not_convert
def validation_batches(
    store: RecordStore,
    case_ids: Sequence[str],
    settings: PipelineSettings,
    *,
    target: str,
    batch_size: int,
    seed: int,
    worker: int = 0,
    workers: int = 1,
    cache: RecordCache = None,
    embeddings: EmbeddingStore | None = None,
) -> tf.data.Dataset:
    """Return batches of fixed patches of every case, the same each time.

    They hold image (B, d, h, w, C) float16, target (B, d, h, w, K) uint8, of slices without d, and
    weight (B,) float32: 1, or 0 where the last batches are filled up with zeros. With several
    `workers` each gets other cases, in as many batches of (B / workers, …). The arguments are those
    of `TrainingBatches`.
    """
    count, per_volume = len(case_ids), settings.validation_patches_per_volume
    share = batch_size // workers
    batches = -(-(-(-count // workers) * per_volume) // share)
    own = case_ids[worker::workers]
    weight = tf.constant(1.0)
    reader = PatchReader(store, case_ids, settings, target, cache=cache, embeddings=embeddings)
    seeds = seeds_of(tf.constant([seed, _VALIDATION]), count)
    counts = tf.fill([len(own)], per_volume)
    slots = (tf.range(count)[worker::workers], seeds[worker::workers], counts)
    patches = reader.patches(tf.data.Dataset.from_tensor_slices(slots), volumes=1)
    patches = patches.map(lambda image, target: (image, target, weight))
    missing = batches * share - len(own) * per_volume
    if missing:
        zeros = [tf.zeros(spec.shape, spec.dtype) for spec in patches.element_spec]
        patches = patches.concatenate(tf.data.Dataset.from_tensors(tuple(zeros)).repeat(missing))
    return _finish(patches.batch(share, drop_remainder=True), settings.prefetch, batches)


def _finish(batches: tf.data.Dataset, prefetch: int, cardinality: int) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    counted = batches.apply(tf.data.experimental.assert_cardinality(cardinality))
    return counted.prefetch(prefetch).with_options(options)


class PatchReader:
    """Turns slots (case index, seed, number of patches) into patches of the case, in the graph.

    A patch is image (*size, C) float16 and target (*size, K) uint8. With `augment_later` the
    device's augmentations are left out, and their seed (2,) follows as a third tensor.
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
        embeddings: EmbeddingStore | None = None,
    ) -> None:
        located = cache if isinstance(cache, DiskCache) else store
        paths, offsets = located.locate(case_ids)
        self._cached = cache.reader(case_ids) if isinstance(cache, MemoryCache) else None
        self._augment_later = augment_later
        self._embedding = None if embeddings is None else embeddings.reader(case_ids)
        # Copies were augmented before they were embedded; validation has the slices as they are.
        self._copies = embeddings.copies if embeddings is not None and transforms else 1
        self._channels = len(store.manifest.settings["data.modalities"])
        self._paths = tf.constant(paths)
        self._offsets = tf.constant(offsets, tf.int64)
        self._settings = settings
        self._target = target
        self._transforms = tuple(transforms) if embeddings is None else ()
        self._patch = Patch.of(settings, self._channels)
        self._sizes = TableSizes.of(store.rows.values())

    @tf.autograph.experimental.do_not_convert  # converting takes seconds and finds nothing
    def patches(self, slots: tf.data.Dataset, volumes: int) -> tf.data.Dataset:
        """Return the patches of each slot; those of `volumes` consecutive slots take turns."""
        if self._embedding is not None:
            slots = slots.map(lambda case, *rest: (case, *rest, case))
        records = self.records(slots)
        # The smaller thing waits for its turn: a volume rather than all its patches, but slices
        # rather than their volume.
        if len(self._settings.patch_size) == 3:
            turns = records.interleave(
                lambda record, seed, count: tf.data.Dataset.from_tensor_slices(
                    seeds_of(seed, count)
                ).map(lambda patch_seed: (record, patch_seed)),
                cycle_length=volumes,
                block_length=1,
            )
            return turns.map(self._draw, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        draw = self._draw_all if self._embedding is None else self._draw_places
        slices = records.map(
            lambda record, seed, count, *case: draw(record, seeds_of(seed, count), *case),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        patches = slices.interleave(
            lambda *parts: tf.data.Dataset.from_tensor_slices(parts),
            cycle_length=volumes,
            block_length=1,
        )
        if (embedding := self._embedding) is None:
            return patches

        def read(case: tf.Tensor, index: tf.Tensor, masks: tf.Tensor) -> tf.data.Dataset:
            found = embedding(case, index)
            if self._copies == 1:
                return found.map(lambda part, *_: (part, masks))
            return found.map(lambda part, label: (part, target_masks(label, self._target)))

        return patches.interleave(
            read,
            cycle_length=_READ_AHEAD,
            block_length=1,
            num_parallel_calls=_READ_AHEAD,
            deterministic=True,
        )

    def records(self, slots: tf.data.Dataset) -> tf.data.Dataset:
        """Return the record of each slot, and what else the slot has."""
        cached = self._cached
        if cached is not None:
            return slots.map(
                lambda index, *rest: (cached(index), *rest),
                num_parallel_calls=tf.data.AUTOTUNE,
                deterministic=True,
            )
        return self.serialized(slots).map(
            lambda data, *rest: (parse_record(data, self._channels, self._sizes), *rest),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

    def serialized(self, slots: tf.data.Dataset) -> tf.data.Dataset:
        """Return the bytes of the record of each slot, and what else the slot has."""
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
        background = record.voxels.values[0]
        image, label = augment(self._transforms, image, label, self._patch, own, where, background)
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

    def _draw_places(
        self, record: Record, seeds: tf.Tensor, case: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        """Draw slices: case (N,) and place in its embeddings (N,) of each, masks (N, h, w, K)."""
        axis = self._patch.across

        def place(seed: tf.Tensor) -> tf.Tensor:
            index = first_of_slice(record, self._settings, seed)[axis]
            draw = tf.random.stateless_uniform([], tf.random.fold_in(seed, _COPY))
            return index + pick(draw, self._copies) * record.voxels.shape[axis]

        places = tf.map_fn(
            lambda seed: (place(seed), self._draw(record, seed)[1]),
            seeds,
            fn_output_signature=(
                tf.TensorSpec([], tf.int32),
                tf.TensorSpec(
                    [*self._settings.patch_size, len(anatomy.TARGETS[self._target])], tf.uint8
                ),
            ),
        )
        return (tf.fill(tf.shape(seeds)[:1], case), *places)

    def _read(self, index: tf.Tensor, *rest: tf.Tensor) -> tf.data.Dataset:
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
        return record.take(1).map(lambda serialized: (serialized, *rest))


def seeds_of(seed: tf.Tensor, count: int | tf.Tensor) -> tf.Tensor:
    """Derive `count` seeds (count, 2) from one: `tf.random.fold_in(seed, i)` for each i."""
    # TensorFlow hashes the seed alone and puts i beside it, so that no loop over i is needed.
    hashed, _ = tf.unstack(tf.random.fold_in(seed, 0))
    return tf.stack([tf.fill([count], hashed), tf.range(count)], axis=1)
