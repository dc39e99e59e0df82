"""Cached records give the same batches, and are refused where they do not fit."""

import multiprocessing
from types import SimpleNamespace

import numpy as np
import pytest

from kerasseg.errors import UserError
from kerasseg.pipeline import record_cache
from kerasseg.pipeline.batches import TrainingBatches, validation_batches
from kerasseg.pipeline.record_cache import DiskCache, MemoryCache, open_cache
from kerasseg.records.store import RecordStore, open_store
from tests.conftest import phantom_experiment

SLICES = ("model.dimensions=2", "pipeline.patch_size=[16,12]")


def epoch(store, folder, *overrides):
    """All batches of an epoch, and of validation on other cases."""
    settings = phantom_experiment(folder, *overrides).pipeline
    train, others = list(store.rows)[:5], list(store.rows)[5:]
    cache = open_cache(settings, store, [*train, *others])
    options = {"target": "subregions", "batch_size": 2, "seed": 3, "cache": cache}
    batches = TrainingBatches(store, train, settings, **options)
    found = list(batches.dataset().take(batches.steps_per_epoch))
    found += list(validation_batches(store, others, settings, **options))
    return [part.numpy() for batch in found for part in batch]


@pytest.mark.parametrize(
    ("cache", "compression", "kind"),
    [
        ("memory", "none", ()),
        pytest.param("memory", "zlib", SLICES, marks=pytest.mark.all_only),
        ("disk", "zlib", SLICES),
        pytest.param("disk", "none", (), marks=pytest.mark.all_only),
    ],
)
def test_batches_are_those_without_a_cache(
    cache, compression, kind, phantom_store, zlib_store, tmp_path
):
    store = phantom_store if compression == "none" else zlib_store
    root = [f"pipeline.cache_root={tmp_path / 'copies'}"] if cache == "disk" else []
    plain = epoch(store, tmp_path, *kind)
    found = epoch(store, tmp_path, *kind, f"pipeline.cache={cache}", *root)
    assert len(found) == len(plain) > 10
    for a, b in zip(found, plain, strict=True):
        np.testing.assert_array_equal(a, b)


def test_copies_are_kept_and_made_again_where_they_are_missing(zlib_store, tmp_path):
    cases = list(zlib_store.rows)[:3]
    cache = DiskCache(zlib_store, cases, tmp_path)
    paths = sorted(cache.folder.glob("case-*"))
    assert len(paths) == 3
    times = [path.stat().st_mtime_ns for path in paths]
    paths[1].unlink()
    DiskCache(zlib_store, cases, tmp_path)
    assert sorted(cache.folder.glob("case-*")) == paths
    again = [path.stat().st_mtime_ns for path in paths]
    assert again[0] == times[0] and again[2] == times[2] and again[1] > times[1]


def test_the_folder_stands_beside_the_store_unless_another_is_named(tmp_path):
    experiment = phantom_experiment(tmp_path, "pipeline.cache=disk")
    store = open_store(experiment)
    cache = open_cache(experiment.pipeline, store, list(store.rows)[:1])
    assert cache.folder.parent == store.root.with_name(f"{store.root.name}.cache")
    open_store(experiment)  # it is not taken for a part of the store


def test_of_two_processes_one_copies_and_the_other_waits_and_reads_the_copies(
    zlib_store, tmp_path, capfd
):
    def fill() -> None:
        DiskCache(zlib_store, list(zlib_store.rows), tmp_path).check_records()

    # Forked: a second import of TensorFlow would take longer than the rest of these tests.
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=fill) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(300)
    assert [process.exitcode for process in both] == [0, 0]
    assert capfd.readouterr().err.count("Caching 8 cases") == 1
    assert len(list(tmp_path.glob("*/case-*"))) == 8


def test_copies_of_older_versions_of_the_store_go_when_nobody_reads_them(tmp_path, zlib_store):
    def make(store):
        return open_cache(experiment.pipeline, store, list(store.rows)[:1])

    experiment = phantom_experiment(
        tmp_path, "pipeline.cache=disk", f"pipeline.cache_root={tmp_path / 'copies'}"
    )
    store = open_store(experiment)
    of_another_store = make(zlib_store)
    first = make(store)
    changed = {"data_fingerprint": f"{1:016x}"}
    newer = RecordStore(store.root, store.manifest.model_copy(update=changed))
    second = make(newer)
    assert first.folder.exists(), "another run still reads it"
    first_folder = first.folder
    del first
    third = make(newer)
    assert not first_folder.exists()
    assert third.folder == second.folder
    assert second.folder.exists() and of_another_store.folder.exists()


def test_copies_that_name_no_store_go_only_from_the_folder_of_this_store(tmp_path):
    """Before, a cache did not say of which store it was."""
    for root in ("", f"pipeline.cache_root={tmp_path / 'copies'}"):
        experiment = phantom_experiment(tmp_path, "pipeline.cache=disk", *filter(None, [root]))
        store = open_store(experiment)
        parent = experiment.pipeline.cache_root or tmp_path / "store.cache"
        old, foreign = parent / f"{1:016x}-{2:016x}", parent / "photographs"
        for folder in (old, foreign):
            folder.mkdir(parents=True)
            (folder / "case-000000.tfrecord").touch()
        open_cache(experiment.pipeline, store, list(store.rows)[:1])
        assert foreign.exists() and old.exists() == bool(root)


def test_whole_copies_in_a_folder_that_cannot_be_written_are_read(
    phantom_store, tmp_path, monkeypatch
):
    cases = list(phantom_store.rows)[:2]
    DiskCache(phantom_store, cases, tmp_path)
    (tmp_path / ".lock").unlink()
    monkeypatch.setattr(record_cache.os, "access", lambda path, mode: False)
    DiskCache(phantom_store, cases, tmp_path).check_records()
    assert not (tmp_path / ".lock").exists()


def test_a_damaged_copy_is_named(phantom_store, tmp_path):
    cases = list(phantom_store.rows)[:2]
    cache = DiskCache(phantom_store, cases, tmp_path)
    cache.check_records()
    path = sorted(cache.folder.glob("case-*"))[1]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=rf"{path.name}: this copy .* {cases[1]} .* delete it"):
        cache.check_records()


def test_a_memory_that_is_too_small_is_refused_before_anything_is_read(
    phantom_store, tmp_path, monkeypatch
):
    small = SimpleNamespace(virtual_memory=lambda: SimpleNamespace(available=10_000))
    monkeypatch.setattr(record_cache, "psutil", small)
    monkeypatch.setattr(record_cache, "read_record", None)
    with pytest.raises(UserError, match=r"cache=memory needs .* GB for the 8 .* use .*disk or"):
        MemoryCache(phantom_store, list(phantom_store.rows))


def test_a_disk_that_is_too_small_is_refused(phantom_store, tmp_path, monkeypatch):
    full = SimpleNamespace(disk_usage=lambda path: SimpleNamespace(free=10_000))
    monkeypatch.setattr("kerasseg.files.shutil", full)
    with pytest.raises(UserError, match=r"cache=disk needs for 8 cases .* GB.*cache_root"):
        DiskCache(phantom_store, list(phantom_store.rows), tmp_path)
    assert not list(tmp_path.glob("*/case-*"))


@pytest.mark.parametrize("store", ["phantom_store", "zlib_store"])
def test_the_memory_computed_beforehand_is_what_it_takes(store, request):
    store = request.getfixturevalue(store)
    cases = list(store.rows)
    cache = MemoryCache(store, cases)
    taken = sum(part.nbytes for record in cache._records for part in record)
    computed = sum(record_cache._decoded_bytes(store, case_id) for case_id in cases)
    assert taken <= computed <= 1.2 * taken


def test_cache_root_without_a_disk_cache_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"cache_root is for pipeline.cache=disk, but it is none"):
        phantom_experiment(tmp_path, "pipeline.cache_root=somewhere")
