import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from kerasseg.errors import UserError
from kerasseg.records import convert as converting
from kerasseg.records.split import open_split
from kerasseg.records.store import open_store, replace_store
from tests.conftest import phantom_experiment, write_brats


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if "incomplete" in p.name or p.suffix == ".tmp"]


def test_phantoms_become_shards_a_manifest_and_the_same_voxels(phantom_store, phantoms):
    manifest = json.loads((phantom_store.root / "manifest.json").read_text())
    assert len(manifest["cases"]) == 8 and len(manifest["shards"]) == 3
    assert manifest["settings"]["data.phantom.seed"] == 5
    row = manifest["cases"][0]
    _, label = phantoms[0]
    assert row["voxels"] == {
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


def test_two_processes_write_the_same_bytes_as_one(tmp_path, phantom_store):
    other = open_store(
        phantom_experiment(tmp_path, "records.cases_per_shard=3", "records.workers=2")
    )
    assert other.manifest.data_fingerprint == phantom_store.manifest.data_fingerprint
    for shard in other.manifest.shards:
        assert (other.root / shard).read_bytes() == (phantom_store.root / shard).read_bytes()


def test_opening_again_converts_nothing(tmp_path):
    experiment = phantom_experiment(tmp_path)
    before = open_store(experiment).root / "manifest.json"
    stamp = before.stat().st_mtime_ns
    open_store(experiment)
    assert before.stat().st_mtime_ns == stamp


def test_other_settings_are_refused_in_words(tmp_path):
    open_store(phantom_experiment(tmp_path))
    with pytest.raises(UserError) as error:
        open_store(phantom_experiment(tmp_path, "data.phantom.seed=6", "data.modalities=[t1, t2]"))
    assert "data.phantom.seed is 5 there and 6 in this config" in str(error.value)
    assert "data.modalities is ['flair', 't1', 't1ce', 't2'] there" in str(error.value)


def test_other_scans_are_refused_but_missing_raw_scans_are_fine(
    brats_experiment, brats_root, phantoms
):
    open_store(brats_experiment())
    write_brats(brats_root, "BraTS2021_00009", phantoms[2])
    with pytest.raises(UserError, match=r"1 case\(s\) not in the store \(BraTS2021_00009\)"):
        open_store(brats_experiment())
    shutil.rmtree(brats_root / "BraTS2021_00009")
    write_brats(brats_root, "BraTS2021_00001", phantoms[5])
    with pytest.raises(UserError, match=r"1 case\(s\) changed since"):
        open_store(brats_experiment())
    shutil.rmtree(brats_root)
    assert len(open_store(brats_experiment()).rows) == 2


def test_a_bad_case_leaves_nothing(brats_experiment, brats_root, tmp_path):
    (brats_root / "BraTS2021_00001" / "BraTS2021_00001_seg.nii.gz").unlink()
    for workers in (1, 2):
        with pytest.raises(UserError, match="BraTS2021_00001 has no segmentation"):
            open_store(brats_experiment(f"records.workers={workers}"))
        assert not (tmp_path / "store").exists() and not leftovers(tmp_path)


def test_what_a_killed_conversion_left_is_removed(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    abandoned = tmp_path / f".store.incomplete-{dead.pid}"
    abandoned.mkdir()
    (abandoned / "shard").write_bytes(b"half")
    open_store(phantom_experiment(tmp_path))
    assert not leftovers(tmp_path)


def test_a_cut_shard_a_missing_shard_and_a_flipped_byte(tmp_path):
    experiment = phantom_experiment(tmp_path, "records.cases_per_shard=3")
    store = open_store(experiment)
    shard = store.root / list(store.manifest.shards)[1]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    with pytest.raises(UserError, match=r"shard-00001-of-00003.*cut or overwritten"):
        open_store(experiment)
    flipped = bytearray(whole)
    flipped[store.rows["phantom_0004"].offset + 1000] ^= 1
    shard.write_bytes(flipped)
    with pytest.raises(UserError, match=r"shard-00001-of-00003.*record of case phantom_0004"):
        open_store(experiment).check_records()
    shard.unlink()
    with pytest.raises(UserError, match=r"shard-00001-of-00003.*is missing"):
        open_store(experiment)


def test_a_broken_manifest_and_a_folder_that_is_no_store(tmp_path):
    experiment = phantom_experiment(tmp_path)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="is no record store"):
        open_store(experiment)
    with pytest.raises(UserError, match=r"holds thesis.txt.*not deleted"):
        replace_store(experiment)
    assert (tmp_path / "store" / "thesis.txt").read_text() == "precious"
    (tmp_path / "store" / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="is no manifest"):
        open_store(experiment)


def test_a_store_is_replaced_only_by_a_whole_one(brats_experiment, brats_root, tmp_path):
    store = open_store(brats_experiment())
    before = store.manifest
    open_split(store, brats_experiment().split)
    (brats_root / "BraTS2021_00001" / "BraTS2021_00001_seg.nii.gz").unlink()
    with pytest.raises(UserError, match="no segmentation"):
        replace_store(brats_experiment())
    shutil.rmtree(brats_root / "BraTS2021_00001")
    assert (tmp_path / "store" / "manifest.json").exists(), "the old one is still there"
    after = replace_store(brats_experiment()).manifest
    assert len(before.cases) == 2 and len(after.cases) == 1
    assert len(list((tmp_path / "store" / "splits").iterdir())) == 1, "taken along"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["brats", "store"]


def test_a_mistyped_root_does_not_train_on_the_old_store(brats_experiment, tmp_path):
    open_store(brats_experiment())
    with pytest.raises(UserError, match=r"data.root: .*typo does not exist"):
        open_store(brats_experiment(f"data.root={tmp_path / 'typo'}"))


def test_an_empty_folder_and_a_link_to_one_may_become_the_store(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "elsewhere")
    assert len(open_store(phantom_experiment(tmp_path)).rows) == 8
    assert (tmp_path / "elsewhere" / "manifest.json").exists()
    assert len(replace_store(phantom_experiment(tmp_path, "data.phantom.cases=3")).rows) == 3
    assert (tmp_path / "store").is_symlink() and (tmp_path / "elsewhere").is_dir()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["elsewhere", "store"]


def test_too_little_disk_is_said_at_the_first_case(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(converting.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"needs about .* GB more \(8 cases.*records.root"):
        open_store(phantom_experiment(tmp_path))
    assert not (tmp_path / "store").exists() and not leftovers(tmp_path)
