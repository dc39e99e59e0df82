import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kerasseg.config.augment import transforms_of
from kerasseg.losses.loss import SegmentationLoss
from kerasseg.metrics.segmentation import SegmentationMetrics
from kerasseg.pipeline.batches import PatchReader, TrainingBatches, seeds_of, validation_batches
from tests.conftest import phantom_experiment

PATCHES = ()
SLICES = ("model.dimensions=2", "pipeline.patch_size=[16,12]")
SIZE = {PATCHES: (8, 16, 12), SLICES: (16, 12)}

both = pytest.mark.parametrize("kind", [PATCHES, SLICES], ids=["3d", "2d"])
one_of_both = pytest.mark.parametrize(
    "kind",
    [
        pytest.param(PATCHES, id="3d"),
        # The two differ in how a patch is cut, and not in what is tested here.
        pytest.param(SLICES, id="2d", marks=pytest.mark.all_only),
    ],
)


def make(store, tmp_path, *overrides, batch_size=2, **options) -> TrainingBatches:
    settings = phantom_experiment(tmp_path, *overrides).pipeline
    options = {"target": "subregions", "seed": 3} | options
    return TrainingBatches(store, list(store.rows), settings, batch_size=batch_size, **options)


def make_validation(store, tmp_path, *overrides, batch_size=2, **options) -> tf.data.Dataset:
    settings = phantom_experiment(tmp_path, *overrides).pipeline
    options = {"target": "subregions", "seed": 0} | options
    return validation_batches(store, list(store.rows), settings, batch_size=batch_size, **options)


def take(dataset: tf.data.Dataset, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(x.numpy(), y.numpy()) for x, y in dataset.take(count)]


def test_seeds_are_those_that_tensorflow_folds_in():
    for seed in ([3, 0], [-7, 1 << 30]):
        expected = [tf.random.fold_in(tf.constant(seed), number) for number in range(5)]
        np.testing.assert_array_equal(seeds_of(tf.constant(seed), tf.constant(5)), expected)


@both
def test_shapes_types_and_that_patches_are_cut_from_the_named_cases(kind, phantom_store, tmp_path):
    batches = make(phantom_store, tmp_path, *kind)
    assert batches.steps_per_epoch == 8, "8 cases x 2 patches / batch 2"
    for step, (image, target) in enumerate(take(batches.dataset(), 8)):
        assert image.shape == (2, *SIZE[kind], 4) and image.dtype == np.float16
        assert target.shape == (2, *SIZE[kind], 3) and target.dtype == np.uint8
        for position, case_id in enumerate(batches.batch_case_ids(0, step)):
            case = phantom_store.load(case_id).case
            assert contains(case.image, image[position]), f"step {step}: not from {case_id}"
            label = np.zeros(SIZE[kind], np.uint8)
            for class_id in (1, 2, 3):
                label[target[position, ..., class_id - 1] == 1] = class_id
            assert contains(case.label, label)


def contains(volume: np.ndarray, patch: np.ndarray) -> bool:
    """Whether `patch` stands somewhere in `volume` (which may be smaller along an axis)."""
    if patch.ndim < volume.ndim:
        patch = patch[np.newaxis]
    pads = [
        ((p - n + 1) // 2 if n < p else 0,) * 2
        for n, p in zip(volume.shape, patch.shape, strict=True)
    ]
    views = np.lib.stride_tricks.sliding_window_view(np.pad(volume, pads), patch.shape)
    axes = tuple(range(views.ndim - patch.ndim, views.ndim))
    return bool((views == patch).all(axis=axes).any())


@both
def test_every_dimension_is_known_to_the_graph(kind, phantom_store, tmp_path):
    """Unknown channels make a step several times slower, silently."""
    image, target = make(phantom_store, tmp_path, *kind).dataset().element_spec
    assert image.shape == (2, *SIZE[kind], 4) and target.shape == (2, *SIZE[kind], 3)
    image, target, weight = make_validation(phantom_store, tmp_path, *kind).element_spec
    assert image.shape == (2, *SIZE[kind], 4) and target.shape == (2, *SIZE[kind], 3)
    assert weight.shape == (2,)


def test_neighbours_and_the_target_make_the_channels(phantom_store, tmp_path):
    overrides = (*SLICES, "pipeline.slices.neighbours=2")
    batches = make(phantom_store, tmp_path, *overrides, target="binary").dataset()
    assert [spec.shape[1:] for spec in batches.element_spec] == [(16, 12, 20), (16, 12, 1)]
    ((image, target),) = take(batches, 1)
    assert image.shape == (2, 16, 12, 20) and target.shape == (2, 16, 12, 1)
    _, parts = take(make(phantom_store, tmp_path, *overrides).dataset(), 1)[0]
    np.testing.assert_array_equal(target, parts.max(axis=-1, keepdims=True))


@one_of_both
def test_the_same_seed_gives_the_same_batches_and_epochs_differ(kind, phantom_store, tmp_path):
    first, again = (take(make(phantom_store, tmp_path, *kind).dataset(), 16) for _ in range(2))
    for (x, y), (u, v) in zip(first, again, strict=True):
        np.testing.assert_array_equal(x, u)
        np.testing.assert_array_equal(y, v)
    assert any((first[i][0] != first[i + 8][0]).any() for i in range(8))
    other = take(make(phantom_store, tmp_path, *kind, seed=4).dataset(), 8)
    assert any((x != u).any() for (x, _), (u, _) in zip(first, other, strict=False))


@one_of_both
def test_a_later_epoch_is_the_same_whether_reached_or_started_at(kind, phantom_store, tmp_path):
    batches = make(phantom_store, tmp_path, *kind)
    reached = take(batches.dataset(), 20)[16:]
    started = take(batches.dataset(first_epoch=2), 4)
    for (x, _), (u, _) in zip(reached, started, strict=True):
        np.testing.assert_array_equal(x, u)


def test_the_patches_of_a_volume_differ(phantom_store, tmp_path):
    batches = make(phantom_store, tmp_path, "pipeline.tumour_share=0.0")
    images = [x for x, _ in take(batches.dataset(), 8)]
    pairs = [(images[i][k], images[i + 1][k]) for i in (0, 2, 4, 6) for k in (0, 1)]
    assert sum((x != u).any() for x, u in pairs) > len(pairs) // 2


def test_every_epoch_uses_every_case_equally(phantom_store, tmp_path):
    batches = make(phantom_store, tmp_path)
    for epoch in range(3):
        used = [c for step in range(8) for c in batches.batch_case_ids(epoch, step)]
        assert {used.count(case) for case in phantom_store.rows} == {2}
    orders = {tuple(c for s in range(8) for c in batches.batch_case_ids(e, s)) for e in range(3)}
    assert len(orders) == 3, "shuffled anew"


@pytest.mark.parametrize(
    ("cases", "per_volume", "batch_size", "multiple", "steps"),
    [(3, 16, 16, 1, 3), (8, 2, 3, 1, 6), (7, 5, 4, 2, 10), (1, 2, 8, 1, 1), (8, 2, 2, 1, 8)],
)
def test_an_epoch_has_the_patches_of_every_case_rounded_up_to_whole_batches(
    phantom_store, tmp_path, cases, per_volume, batch_size, multiple, steps
):
    ids = list(phantom_store.rows)[:cases]
    pipeline = phantom_experiment(tmp_path, f"pipeline.patches_per_volume={per_volume}").pipeline
    options = {"target": "binary", "seed": 1, "steps_multiple": multiple}
    batches = TrainingBatches(phantom_store, ids, pipeline, batch_size=batch_size, **options)
    assert batches.steps_per_epoch == steps
    assert steps * batch_size - cases * per_volume < batch_size * multiple
    used = [case for step in range(steps) for case in batches.batch_case_ids(1, step)]
    assert set(used) == set(ids)


@both
def test_no_patch_is_drawn_that_no_batch_has(kind, phantom_store, tmp_path, monkeypatch):
    """Three cases fill one group of slots, whose volumes give a third of their patches."""
    drawn = []
    draw = PatchReader._draw

    def count(self, record, seed):
        tf.py_function(lambda: drawn.append(1), [], [])
        return draw(self, record, seed)

    monkeypatch.setattr(PatchReader, "_draw", count)
    overrides = (*kind, "pipeline.patches_per_volume=6", "pipeline.prefetch=0")
    pipeline = phantom_experiment(tmp_path, *overrides).pipeline
    ids = list(phantom_store.rows)[:3]
    batches = TrainingBatches(phantom_store, ids, pipeline, batch_size=9, target="binary", seed=1)
    slots = tf.data.Dataset.from_tensors(0).flat_map(
        lambda _: tf.data.Dataset.from_tensor_slices(batches._own_slots(tf.constant(0, tf.int64)))
    )
    patches = batches._reader.patches(slots, volumes=9)
    assert sum(1 for _ in patches) == batches.steps_per_epoch * 9 == 18 == len(drawn)


@one_of_both
def test_steps_that_do_not_divide_evenly_end_with_the_epoch(kind, phantom_store, tmp_path):
    batches = make(phantom_store, tmp_path, *kind, steps_per_epoch=5)
    second_epoch = take(batches.dataset(), 10)[5:]
    for (x, _), (u, _) in zip(second_epoch, take(batches.dataset(first_epoch=1), 5), strict=True):
        np.testing.assert_array_equal(x, u)
    assert make(phantom_store, tmp_path, batch_size=3, steps_multiple=4).steps_per_epoch == 8


def test_more_steps_than_one_pass_gives(phantom_store, tmp_path):
    batches = make(phantom_store, tmp_path, batch_size=3, steps_per_epoch=20)
    assert len(take(batches.dataset(), 25)) == 25
    assert len(batches.batch_case_ids(0, 19)) == 3


@one_of_both
def test_the_tumour_share_reaches_the_batches(kind, phantom_store, tmp_path):
    shares = []
    for share in (0.0, 1.0):
        batches = make(phantom_store, tmp_path, *kind, f"pipeline.tumour_share={share}")
        shares.append(np.mean([y.mean() for _, y in take(batches.dataset(), 32)]))
    assert shares[1] > shares[0]


def test_the_choice_of_slices_reaches_the_batches(phantom_store, tmp_path):
    """Phantom 7 has no tumour at all; of the others every slice drawn has some."""
    overrides = (*SLICES, "pipeline.slices.keep=tumour", "pipeline.tumour_share=1.0")
    batches = make(phantom_store, tmp_path, *overrides)
    for step, (_, target) in enumerate(take(batches.dataset(), 16)):
        for position, case_id in enumerate(batches.batch_case_ids(step // 8, step % 8)):
            assert target[position].any() == (case_id != "phantom_0007")


@both
def test_validation_patches_are_fixed_and_complete(kind, phantom_store, tmp_path):
    dataset = make_validation(
        phantom_store,
        tmp_path,
        *kind,
        "pipeline.validation_patches_per_volume=3",
        batch_size=5,
    )
    first, again = ([[part.numpy() for part in batch] for batch in dataset] for _ in range(2))
    assert [len(x) for x, *_ in first] == [5] * 5 and len(dataset) == 5
    for parts, others in zip(first, again, strict=True):
        for x, u in zip(parts, others, strict=True):
            np.testing.assert_array_equal(x, u)
    patches, targets, weight = (np.concatenate(parts) for parts in zip(*first, strict=True))
    assert weight.dtype == np.float32 and weight.tolist() == [1] * 24 + [0]
    assert not patches[24].any() and not targets[24].any(), "only fills up the last batch"
    for index, case_id in enumerate(phantom_store.rows):
        case = phantom_store.load(case_id).case
        assert all(contains(case.image, patch) for patch in patches[3 * index : 3 * index + 3])


@pytest.mark.parametrize(
    ("cases", "workers"), [pytest.param(7, 3, marks=pytest.mark.all_only), (2, 3)]
)
def test_each_worker_validates_other_cases_in_as_many_batches(
    phantom_store, tmp_path, cases, workers
):
    """Together those of one worker, each once; of two cases the third worker has none."""
    ids = list(phantom_store.rows)[:cases]
    pipeline = phantom_experiment(
        tmp_path, *SLICES, "pipeline.validation_patches_per_volume=3"
    ).pipeline
    found, counts = [], []
    for worker in range(-1, workers):
        place = {} if worker < 0 else {"worker": worker, "workers": workers}
        dataset = validation_batches(
            phantom_store, ids, pipeline, target="regions", batch_size=6, seed=1, **place
        )
        read = [[part.numpy() for part in batch] for batch in dataset]
        assert len(read) == len(dataset)
        counts.append(len(read))
        image, target, weight = (np.concatenate(parts) for parts in zip(*read, strict=True))
        assert len(weight) == len(read) * (6 if worker < 0 else 6 // workers)
        kept = weight > 0
        assert kept.sum() == 3 * len(ids[max(worker, 0) :: workers if worker >= 0 else 1])
        assert not image[~kept].any() and not target[~kept].any()
        pairs = zip(image[kept], target[kept], strict=True)
        found.append([(x.tobytes(), y.tobytes()) for x, y in pairs])
    assert len(set(counts[1:])) == 1, "or one would wait for another for ever"
    assert sorted(found[0]) == sorted(pair for own in found[1:] for pair in own)
    assert len(set(found[0])) == len(found[0])


def test_compressed_records_give_the_same_batches(phantom_store, zlib_store, tmp_path):
    rows = zip(zlib_store.rows.values(), phantom_store.rows.values(), strict=True)
    assert all(row.payload_bytes < plain.payload_bytes for row, plain in rows)
    batches = (take(make(store, tmp_path).dataset(), 4) for store in (zlib_store, phantom_store))
    for (x, y), (u, v) in zip(*batches, strict=True):
        np.testing.assert_array_equal(x, u)
        np.testing.assert_array_equal(y, v)


@settings(
    deadline=None,
    max_examples=3,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_workers_share_the_batches_and_a_later_batch_can_be_the_first(
    phantom_store, tmp_path, data
):
    """For any sizes: the parts of all workers, side by side, are the batches of one, and begun at a
    batch they are those that are left, over the end of the epoch."""
    cases = data.draw(st.integers(1, 8), "cases")
    workers = data.draw(st.integers(1, 3), "workers")
    batch_size = workers * data.draw(st.integers(1, 2), "share")
    per_volume = data.draw(st.integers(1, 3), "patches per volume")
    steps = data.draw(st.none() | st.integers(1, 7), "steps per epoch")
    pipeline = phantom_experiment(
        tmp_path, *SLICES, f"pipeline.patches_per_volume={per_volume}"
    ).pipeline

    def batches(**place) -> TrainingBatches:
        ids = list(phantom_store.rows)[:cases]
        options = {"target": "binary", "seed": 7, "steps_per_epoch": steps, **place}
        return TrainingBatches(phantom_store, ids, pipeline, batch_size=batch_size, **options)

    alone = batches()
    epoch = data.draw(st.integers(0, 1), "epoch")
    first = data.draw(st.integers(0, alone.steps_per_epoch), "first batch")
    count = alone.steps_per_epoch - first + 2
    everything = take(alone.dataset(), (epoch + 1) * alone.steps_per_epoch + 2)[-count:]
    parts = [
        take(batches(worker=n, workers=workers).dataset(epoch, first), count)
        for n in range(workers)
    ]
    for step, expected in enumerate(everything):
        for index in range(2):
            shares = [own[step][index] for own in parts]
            assert {len(share) for share in shares} == {batch_size // workers}
            np.testing.assert_array_equal(np.concatenate(shares), expected[index])


def test_a_batch_that_workers_cannot_share_is_refused(phantom_store, tmp_path):
    with pytest.raises(ValueError, match="batch_size 3 cannot be shared by 2 workers"):
        make(phantom_store, tmp_path, batch_size=3, worker=0, workers=2)


VARIED = "augment.transforms=[{flip: {}}, {spatial: {}}, {gaussian_noise: {}}, {gamma: {}}]"


@one_of_both
def test_an_epoch_is_the_same_with_any_number_of_threads(kind, phantom_store, tmp_path):
    """With drawing, cutting, warping and computing; test_compose does it with every transform."""
    size = "[16,16]" if kind else "[8,16,16]"
    overrides = (*kind, f"pipeline.patch_size={size}", VARIED)
    augmentation = phantom_experiment(tmp_path, *overrides).augment
    epochs = []
    for threads in (1, 5):
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        batches = make(phantom_store, tmp_path, *overrides, transforms=transforms_of(augmentation))
        dataset = batches.dataset().with_options(options)
        epochs.append(take(dataset, batches.steps_per_epoch))
    for one, many in zip(*epochs, strict=True):
        for a, b in zip(one, many, strict=True):
            np.testing.assert_array_equal(a, b)
    assert len({image.tobytes() for image, _ in epochs[0]}) == batches.steps_per_epoch


def test_validation_batches_serve_kerass_own_evaluation(phantom_store, tmp_path):
    """Their weights reach loss and metric, so that the filler of the last batch does not count."""
    dataset = make_validation(
        phantom_store, tmp_path, *SLICES, "pipeline.validation_patches_per_volume=3", batch_size=5
    )
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((*SIZE[SLICES], 4)), keras.layers.Conv2D(3, 1)])
    loss = SegmentationLoss([{"dice": 1}, {"cross_entropy": 1}, {"top_k": 1}], from_logits=True)
    metric = SegmentationMetrics(("NCR", "ED", "ET"), threshold=0.0)
    network.compile(loss=loss, weighted_metrics=[metric], run_eagerly=True)
    found = network.evaluate(dataset, return_dict=True, verbose=0)
    losses, alone = [], SegmentationMetrics(("NCR", "ED", "ET"), threshold=0.0)
    for image, masks, weight in dataset:
        kept = weight.numpy() > 0
        logits = network(image.numpy()[kept])
        losses.append(float(loss(masks.numpy()[kept], logits)))
        alone.update_state(masks.numpy()[kept], logits)
    assert not kept.all() and found["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert found["dice_ED"] == pytest.approx(float(alone.result()["dice_ED"]), rel=1e-6)
