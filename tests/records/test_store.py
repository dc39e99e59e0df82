import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from kerasseg.config.load import load_experiment
from kerasseg.errors import UserError
from kerasseg.records import convert as converting
from kerasseg.records.manifest import read_manifest, read_rows
from kerasseg.records.splits import open_split
from kerasseg.records.store import RecordStore, open_store, replace_store, update_store
from tests.conftest import phantom_experiment, write_brats
from tests.datasets.test_dataset_json import write_msd

WHOLE = [".lock", "manifest.jsonl", "shard-00000.tfrecord", "store.json"]


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def voxels_of(store: RecordStore) -> dict[str, np.ndarray]:
    return {case_id: store.load(case_id).case.image for case_id in store.rows}


def test_phantoms_become_shards_a_manifest_and_the_same_voxels(phantom_store, phantoms):
    head = json.loads((phantom_store.root / "store.json").read_text())
    rows = [json.loads(line) for line in (phantom_store.root / "manifest.jsonl").open()]
    assert len(rows) == 8 and len(head["shards"]) == 3
    assert head["settings"]["data.phantom.seed"] == 5
    _, label = phantoms[0]
    assert rows[0]["voxels"] == {
        "NCR": (label == 1).sum(),
        "ED": (label == 2).sum(),
        "ET": (label == 3).sum(),
    }
    for index, case_id in enumerate(phantom_store.rows):
        stored = phantom_store.load(case_id)
        full = np.zeros(stored.full_shape, np.uint8)
        full[
            tuple(
                slice(o, o + n) for o, n in zip(stored.offset, stored.case.label.shape, strict=True)
            )
        ] = stored.case.label
        np.testing.assert_array_equal(full, phantoms[index][1])
    phantom_store.check_records()


def test_the_manifest_names_the_raw_files_with_size_and_hash(brats_experiment, brats_root):
    import hashlib

    store = open_store(brats_experiment())
    for case_id, row in store.rows.items():
        assert [f.name for f in row.files] == [
            f"{case_id}/{case_id}_{kind}.nii.gz" for kind in ("flair", "t1", "t1ce", "t2", "seg")
        ]
        for file in row.files:
            data = (brats_root / file.name).read_bytes()
            assert file.bytes == len(data)
            assert file.sha256 == hashlib.sha256(data).hexdigest()


def test_two_processes_write_the_same_bytes_as_one(tmp_path, phantom_store):
    other = open_store(
        phantom_experiment(tmp_path, "records.cases_per_shard=3", "records.workers=2")
    )
    assert other.manifest.data_fingerprint == phantom_store.manifest.data_fingerprint
    for shard in other.manifest.shards:
        assert (other.root / shard).read_bytes() == (phantom_store.root / shard).read_bytes()


def test_opening_again_converts_nothing(tmp_path):
    experiment = phantom_experiment(tmp_path)
    before = open_store(experiment).root / "store.json"
    stamp = before.stat().st_mtime_ns
    open_store(experiment)
    update_store(experiment)
    assert before.stat().st_mtime_ns == stamp
    assert names(before.parent) == WHOLE


def test_other_settings_are_refused_in_words(tmp_path):
    open_store(phantom_experiment(tmp_path))
    other = phantom_experiment(tmp_path, "data.phantom.seed=6", "data.modalities=[t1, t2]")
    for act in (open_store, update_store):
        with pytest.raises(UserError) as error:
            act(other)
        assert "data.phantom.seed is 5 there and 6 in this config" in str(error.value)
        assert "data.modalities is ['flair', 't1', 't1ce', 't2'] there" in str(error.value)


def test_new_changed_and_removed_cases_are_refused_then_brought_up_to_date(
    brats_experiment, brats_root, phantoms, monkeypatch
):
    for index in (2, 3, 4):
        write_brats(brats_root, f"BraTS2021_{index:05d}", phantoms[index])
    experiment = brats_experiment("records.cases_per_shard=2")
    before = voxels_of(open_store(experiment))
    write_brats(brats_root, "BraTS2021_00009", phantoms[5])
    shutil.rmtree(brats_root / "BraTS2021_00003")
    replaced = brats_root / "BraTS2021_00001" / "BraTS2021_00001_t1.nii.gz"
    content = bytearray(replaced.read_bytes())
    shutil.copy(brats_root / "BraTS2021_00000" / "BraTS2021_00000_t1.nii.gz", replaced)
    with pytest.raises(UserError) as error:
        open_store(experiment)
    for words in (
        "1 case(s) not in the store (BraTS2021_00009)",
        "1 case(s) only in the store (BraTS2021_00003)",
        "1 case(s) changed since (BraTS2021_00001)",
        "kerasseg convert",
    ):
        assert words in str(error.value)

    converted = []
    original = converting.convert_cases

    def spy(experiment, sources):
        converted.extend(source.case_id for source in sources)
        return original(experiment, sources)

    monkeypatch.setattr(converting, "convert_cases", spy)
    store = update_store(experiment)
    assert converted == ["BraTS2021_00001", "BraTS2021_00009"], "the others are kept"
    assert list(store.rows) == [f"BraTS2021_{i:05d}" for i in (0, 1, 2, 4, 9)]
    after = voxels_of(open_store(experiment))
    for case_id in ("BraTS2021_00000", "BraTS2021_00002", "BraTS2021_00004"):
        np.testing.assert_array_equal(after[case_id], before[case_id])
    assert (after["BraTS2021_00001"] != before["BraTS2021_00001"]).any()
    fresh = replace_store(experiment)
    assert fresh.manifest.data_fingerprint == store.manifest.data_fingerprint
    replaced.write_bytes(content)
    np.testing.assert_array_equal(
        voxels_of(update_store(experiment))["BraTS2021_00001"], before["BraTS2021_00001"]
    )


def test_a_file_of_the_same_size_with_other_bytes_is_noticed(brats_experiment, brats_root):
    open_store(brats_experiment())
    path = brats_root / "BraTS2021_00000" / "BraTS2021_00000_t2.nii.gz"
    content = bytearray(path.read_bytes())
    path.touch()
    open_store(brats_experiment())  # another time alone is no change
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"1 case\(s\) changed since \(BraTS2021_00000\)"):
        open_store(brats_experiment())


def test_missing_raw_scans_are_fine(brats_experiment, brats_root):
    open_store(brats_experiment())
    shutil.rmtree(brats_root)
    assert len(open_store(brats_experiment()).rows) == 2


def test_a_bad_case_stops_and_the_finished_ones_are_kept(brats_experiment, brats_root, tmp_path):
    segmentation = brats_root / "BraTS2021_00001" / "BraTS2021_00001_seg.nii.gz"
    whole = segmentation.read_bytes()
    segmentation.unlink()
    for workers in (1, 2):
        with pytest.raises(UserError, match=r"BraTS2021_00001 has no segm(.|\n)*on_bad_case=skip"):
            open_store(brats_experiment(f"records.workers={workers}"))
    assert names(tmp_path / "store") == [".lock", "journal.jsonl", "shard-00000.tfrecord"]
    segmentation.write_bytes(whole)
    assert len(open_store(brats_experiment()).rows) == 2
    assert names(tmp_path / "store") == [
        ".lock",
        "manifest.jsonl",
        "shard-00000.tfrecord",
        "shard-00001.tfrecord",
        "store.json",
    ]


def test_a_case_that_is_bad_at_first_sight_leaves_nothing(brats_experiment, brats_root, tmp_path):
    for index in range(2):
        (brats_root / f"BraTS2021_{index:05d}" / f"BraTS2021_{index:05d}_t1.nii.gz").unlink()
    with pytest.raises(
        UserError, match=r"no t1 file(.|\n)*1 more case.s. are bad too: kerasseg verify"
    ):
        open_store(brats_experiment())
    assert not (tmp_path / "store").exists()
    with pytest.raises(UserError, match=r"no case of data.root=.* can be used"):
        open_store(brats_experiment("data.on_bad_case=skip"))
    assert not (tmp_path / "store").exists()
    (tmp_path / "store").mkdir()
    for run in (open_store, update_store, replace_store):
        with pytest.raises(UserError, match=r"no t1 file"):
            run(brats_experiment())
        assert names(tmp_path) == ["brats", "store"], "the user's own folder stays"
        assert names(tmp_path / "store") == []


def test_bad_cases_are_skipped_and_named_on_request(brats_experiment, brats_root, phantoms):
    write_brats(brats_root, "BraTS2021_00002", phantoms[1])  # the voxels of 00001
    folder = write_brats(brats_root, "BraTS2021_00003", phantoms[3])
    path = folder / "BraTS2021_00003_t2.nii.gz"
    path.write_bytes(path.read_bytes()[:200])
    folder = write_brats(brats_root, "BraTS2021_00004", phantoms[4])
    (folder / "BraTS2021_00004_t1.nii.gz").unlink()
    with pytest.raises(UserError, match="BraTS2021_00004 has no t1 file"):
        open_store(brats_experiment())
    for workers in (1, 2):
        experiment = brats_experiment("data.on_bad_case=skip", f"records.workers={workers}")
        store = replace_store(experiment)
        assert list(store.rows) == ["BraTS2021_00000", "BraTS2021_00001"]
        reasons = {case.case_id[-1]: case.reason for case in store.manifest.skipped}
        assert "same voxels as BraTS2021_00001" in reasons["2"]
        assert "damaged or truncated" in reasons["3"] and "no t1 file" in reasons["4"]
        assert len(open_store(experiment).manifest.skipped) == 3


def test_a_cut_shard_a_missing_shard_and_a_flipped_byte(tmp_path):
    experiment = phantom_experiment(tmp_path, "records.cases_per_shard=3")
    store = open_store(experiment)
    before = voxels_of(store)
    shard = store.root / list(store.manifest.shards)[1]
    whole = shard.read_bytes()
    flipped = bytearray(whole)
    flipped[store.rows["phantom_0004"].offset + 1000] ^= 1
    for damage, words in [
        (lambda: shard.write_bytes(whole[:-100]), r"shard-00001.tfrecord: is .* cut or overwr"),
        (shard.unlink, r"shard-00001.tfrecord: this shard .*\(phantom_0003, .*is missing"),
    ]:
        damage()
        with pytest.raises(UserError, match=words):
            open_store(experiment)
        skipping = phantom_experiment(
            tmp_path, "records.cases_per_shard=3", "records.on_damaged_record=skip"
        )
        assert set(open_store(skipping).damaged_records()) <= {f"phantom_000{i}" for i in (3, 4, 5)}
        assert "phantom_0005" in open_store(skipping).damaged_records()
        shard.write_bytes(whole)
    shard.write_bytes(flipped)
    damaged = open_store(experiment).damaged_records()
    assert list(damaged) == ["phantom_0004"]
    assert "shard-00001.tfrecord: the record of case phantom_0004" in damaged["phantom_0004"]
    with pytest.raises(UserError, match="record of case phantom_0004"):
        open_store(experiment).check_records()
    # Converting repairs all of it, from the raw scans of the damaged case alone.
    repaired = update_store(experiment)
    assert not repaired.damaged_records()
    assert {k: v.tobytes() for k, v in voxels_of(repaired).items()} == {
        k: v.tobytes() for k, v in before.items()
    }
    assert repaired.manifest.data_fingerprint == store.manifest.data_fingerprint


def test_records_that_changed_places_are_noticed(tmp_path):
    store = open_store(phantom_experiment(tmp_path, "records.cases_per_shard=1"))
    first, second = (store.root / name for name in list(store.manifest.shards)[:2])
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    assert sorted(store.damaged_records()) == ["phantom_0000", "phantom_0001"]


def test_a_broken_manifest_and_a_folder_that_is_no_store(tmp_path):
    experiment = phantom_experiment(tmp_path)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "thesis.txt").write_text("precious")
    for act in (open_store, update_store, replace_store):
        with pytest.raises(UserError, match=r"holds thesis.txt, so it is no record store of ours"):
            act(experiment)
    assert (tmp_path / "store" / "thesis.txt").read_text() == "precious"
    (tmp_path / "store" / "thesis.txt").unlink()
    (tmp_path / "store" / "store.json").write_text("{}")
    with pytest.raises(UserError, match="is no manifest of a record store"):
        open_store(experiment)
    (tmp_path / "store" / "store.json").unlink()
    (tmp_path / "store" / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="made by an older kerasseg"):
        open_store(experiment)
    assert len(replace_store(experiment).rows) == 8


def test_a_store_is_replaced_only_by_a_whole_one(
    brats_experiment, brats_root, tmp_path, monkeypatch
):
    store = open_store(brats_experiment())
    before = store.manifest
    open_split(store, brats_experiment().split)
    (brats_root / "BraTS2021_00001" / "BraTS2021_00001_seg.nii.gz").unlink()
    with pytest.raises(UserError, match="no segmentation"):
        replace_store(brats_experiment())
    shutil.rmtree(brats_root / "BraTS2021_00001")
    assert (tmp_path / "store" / "store.json").exists(), "the old one is still there"
    rename = Path.rename

    def stop_at_the_second(path, to):
        if path.name == ".store.new":
            raise KeyboardInterrupt
        return rename(path, to)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", stop_at_the_second)
        replace_store(brats_experiment())
    assert names(tmp_path) == [".store.new", ".store.old", "brats"]
    after = replace_store(brats_experiment()).manifest
    assert len(before.cases) == 2 and len(after.cases) == 1
    with pytest.raises(UserError, match=r"cannot be read: No such file"):
        store.load("BraTS2021_00001")  # and no other case in its place
    assert len(list((tmp_path / "store" / "splits").iterdir())) == 1, "taken along"
    assert names(tmp_path) == ["brats", "store"]


def test_a_corrected_dataset_json_makes_its_cases_changed(tmp_path, phantoms):
    description = write_msd(tmp_path / "raw", {"a": phantoms[0]})
    places = [f"data.root={tmp_path / 'raw'}", f"records.root={tmp_path / 'store'}"]
    experiment = load_experiment(None, ["data.layout=msd", *places])
    before = open_store(experiment).rows["a"].voxels
    labels = description["labels"]
    labels["1"], labels["2"] = labels["2"], labels["1"]
    (tmp_path / "raw" / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match=r"1 case\(s\) changed since \(a\)"):
        open_store(experiment)
    after = update_store(experiment).rows["a"].voxels
    assert after == {"NCR": before["ED"], "ED": before["NCR"], "ET": before["ET"]}


def test_every_character_may_stand_in_a_manifest(phantom_store, tmp_path):
    row = phantom_store.manifest.cases[0].model_copy(update={"attributes": {"a": "\u2028\x85\n"}})
    written = phantom_store.manifest.model_copy(update={"cases": [row]})
    written.write(tmp_path)
    assert read_manifest(tmp_path) == written and read_rows(tmp_path) == [row]


def test_a_mistyped_root_does_not_train_on_the_old_store(brats_experiment, tmp_path):
    open_store(brats_experiment())
    with pytest.raises(UserError, match=r"data.root: .*typo does not exist"):
        open_store(brats_experiment(f"data.root={tmp_path / 'typo'}"))


def test_an_empty_folder_and_a_link_to_one_may_become_the_store(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "elsewhere")
    assert len(open_store(phantom_experiment(tmp_path)).rows) == 8
    assert (tmp_path / "elsewhere" / "store.json").exists()
    assert len(replace_store(phantom_experiment(tmp_path, "data.phantom.cases=3")).rows) == 3
    assert (tmp_path / "store").is_symlink() and (tmp_path / "elsewhere").is_dir()
    assert names(tmp_path) == ["elsewhere", "store"]


def test_too_little_disk_is_said_at_the_first_case(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"needs for 8 cases about .* GB, but .*records.root"):
        open_store(phantom_experiment(tmp_path))
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("skip", [False, True])
def test_a_reader_that_fails_in_a_way_nobody_expected_makes_a_bad_case(
    brats_experiment, monkeypatch, skip
):
    original = converting.read_case

    def read(source, settings):
        if source.case_id.endswith("1"):
            raise KeyError("odd")
        return original(source, settings)

    monkeypatch.setattr(converting, "read_case", read)
    if skip:
        store = open_store(brats_experiment("data.on_bad_case=skip"))
        assert [case.case_id for case in store.manifest.skipped] == ["BraTS2021_00001"]
    else:
        with pytest.raises(UserError, match=r"00001: cannot be converted \(KeyError: 'odd'\)"):
            open_store(brats_experiment())


def test_a_case_that_memory_is_too_small_for_is_never_skipped(brats_experiment, monkeypatch):
    def read(source, settings):
        raise MemoryError

    monkeypatch.setattr(converting, "read_case", read)
    with pytest.raises(UserError, match=r"memory ran out: try again with records.workers=1"):
        open_store(brats_experiment("data.on_bad_case=skip"))


def test_a_skipped_case_with_a_link_to_nowhere_stays_skipped_until_it_is_mended(
    brats_experiment, brats_root
):
    path = brats_root / "BraTS2021_00001" / "BraTS2021_00001_t1.nii.gz"
    content = path.read_bytes()
    path.unlink()
    path.symlink_to(brats_root / "nowhere.nii.gz")
    experiment = brats_experiment("data.on_bad_case=skip")
    for _ in range(2):
        assert list(open_store(experiment).rows) == ["BraTS2021_00000"]
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"1 case\(s\) changed since \(BraTS2021_00001\)"):
        open_store(experiment)
    assert len(update_store(experiment).rows) == 2
