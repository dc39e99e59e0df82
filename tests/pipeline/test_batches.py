import numpy as np
import tensorflow as tf

from kerasseg.pipeline.batches import TrainingBatches, validation_batches
from tests.conftest import phantom_experiment

PATCH = (8, 16, 12)


def make(store, tmp_path, *overrides, batch_size=2, **options) -> TrainingBatches:
    settings = phantom_experiment(tmp_path, *overrides).pipeline
    return TrainingBatches(
        store, list(store.rows), settings, batch_size=batch_size, seed=3, **options
    )


def take(dataset: tf.data.Dataset, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(x.numpy(), y.numpy()) for x, y in dataset.take(count)]


def test_shapes_types_and_that_patches_are_cut_from_the_named_cases(phantom_store, tmp_path):
    batches = make(phantom_store, tmp_path)
    assert batches.steps_per_epoch == 8, "8 cases x 2 patches / batch 2"
    for step, (image, target) in enumerate(take(batches.dataset(), 8)):
        assert image.shape == (2, *PATCH, 4) and image.dtype == np.float16
        assert target.shape == (2, *PATCH, 3) and target.dtype == np.uint8
        for position, case_id in enumerate(batches.batch_case_ids(0, step)):
            case = phantom_store.load(case_id).case
            assert contains(case.image, image[position]), f"step {step}: not from {case_id}"
            label = np.zeros(PATCH, np.uint8)
            for class_id in (1, 2, 3):
                label[target[position, ..., class_id - 1] == 1] = class_id
            assert contains(case.label, label)


def test_every_dimension_but_a_short_last_batch_is_known_to_the_graph(phantom_store, tmp_path):
    """Unknown channels make a step several times slower, silently."""
    image, target = make(phantom_store, tmp_path).dataset().element_spec
    assert image.shape == (2, *PATCH, 4) and target.shape == (2, *PATCH, 3)
    settings = phantom_experiment(tmp_path).pipeline
    cases = list(phantom_store.rows)
    image, target = validation_batches(
        phantom_store, cases, settings, batch_size=2, seed=0
    ).element_spec
    assert image.shape[1:] == (*PATCH, 4) and target.shape[1:] == (*PATCH, 3)


def contains(volume: np.ndarray, patch: np.ndarray) -> bool:
    """Whether `patch` stands somewhere in `volume` (which may be smaller along an axis)."""
    window = np.lib.stride_tricks.sliding_window_view
    pads = [
        ((p - n + 1) // 2 if n < p else 0,) * 2 for n, p in zip(volume.shape, PATCH, strict=False)
    ]
    pads += [(0, 0)] * (volume.ndim - 3)
    padded = np.pad(volume, pads)
    views = window(padded, patch.shape)
    axes = tuple(range(views.ndim - patch.ndim, views.ndim))
    return bool((views == patch).all(axis=axes).any())


def test_the_same_seed_gives_the_same_batches_and_epochs_differ(phantom_store, tmp_path):
    first, again = (take(make(phantom_store, tmp_path).dataset(), 16) for _ in range(2))
    for (x, y), (u, v) in zip(first, again, strict=True):
        np.testing.assert_array_equal(x, u)
        np.testing.assert_array_equal(y, v)
    assert any((first[i][0] != first[i + 8][0]).any() for i in range(8))


def test_a_later_epoch_is_the_same_whether_reached_or_started_at(phantom_store, tmp_path):
    batches = make(phantom_store, tmp_path)
    reached = take(batches.dataset(), 20)[16:]
    started = take(batches.dataset(first_epoch=2), 4)
    for (x, _), (u, _) in zip(reached, started, strict=True):
        np.testing.assert_array_equal(x, u)


def test_every_epoch_uses_every_case_equally(phantom_store, tmp_path):
    batches = make(phantom_store, tmp_path)
    for epoch in range(3):
        used = [c for step in range(8) for c in batches.batch_case_ids(epoch, step)]
        assert {used.count(case) for case in phantom_store.rows} == {2}
    orders = {tuple(c for s in range(8) for c in batches.batch_case_ids(e, s)) for e in range(3)}
    assert len(orders) == 3, "shuffled anew"


def test_steps_that_do_not_divide_evenly_end_with_the_epoch(phantom_store, tmp_path):
    batches = make(phantom_store, tmp_path, steps_per_epoch=5)
    second_epoch = take(batches.dataset(), 10)[5:]
    for (x, _), (u, _) in zip(second_epoch, take(batches.dataset(first_epoch=1), 5), strict=True):
        np.testing.assert_array_equal(x, u)
    assert make(phantom_store, tmp_path, batch_size=3, steps_multiple=4).steps_per_epoch == 8


def test_more_steps_than_one_pass_gives(phantom_store, tmp_path):
    batches = make(phantom_store, tmp_path, batch_size=3, steps_per_epoch=20)
    assert len(take(batches.dataset(), 25)) == 25
    assert len(batches.batch_case_ids(0, 19)) == 3


def test_the_tumour_share_reaches_the_batches(phantom_store, tmp_path):
    shares = []
    for share in (0.0, 1.0):
        batches = make(phantom_store, tmp_path, f"pipeline.tumour_share={share}")
        shares.append(np.mean([y.mean() for _, y in take(batches.dataset(), 16)]))
    assert shares[1] > shares[0]


def test_validation_patches_are_fixed_and_complete(phantom_store, tmp_path):
    settings = phantom_experiment(tmp_path, "pipeline.validation_patches_per_volume=3").pipeline
    dataset = validation_batches(
        phantom_store, list(phantom_store.rows), settings, batch_size=5, seed=0
    )
    first, again = ([x.numpy() for x, _ in dataset] for _ in range(2))
    assert [len(x) for x in first] == [5, 5, 5, 5, 4] and len(dataset) == 5
    for x, u in zip(first, again, strict=True):
        np.testing.assert_array_equal(x, u)
