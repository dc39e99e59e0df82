import json

import pytest

from kerasseg.config.pipeline import SplitSettings
from kerasseg.errors import UserError
from kerasseg.records.splits import open_split
from kerasseg.records.store import RecordStore, open_store
from tests.conftest import phantom_experiment


def copy_store(phantom_store, tmp_path) -> RecordStore:
    return RecordStore(tmp_path, phantom_store.manifest)


def test_written_once_and_read_ever_after(phantom_store, tmp_path):
    store = copy_store(phantom_store, tmp_path)
    settings = SplitSettings(validation=0.25, test=0.25)
    split = open_split(store, settings)
    (path,) = (tmp_path / "splits").iterdir()
    values = json.loads(path.read_text())
    values["train"], values["test"] = values["test"], values["train"]
    path.write_text(json.dumps(values))
    assert open_split(store, settings).train == split.test, "the file rules, not the seed"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v["train"].pop(), r"1 case\(s\) of the store are in no part"),
        (lambda v: v["train"].append("ghost"), r"1 named case\(s\) are not in the store"),
        (lambda v: v["train"].append(v["test"][0]), "1 stand twice"),
        (lambda v: v.pop("test"), "is no split file"),
        (lambda v: v["validation"].clear(), "validation is empty"),
    ],
)
def test_a_split_that_does_not_match_is_refused(phantom_store, tmp_path, change, words):
    store = copy_store(phantom_store, tmp_path)
    open_split(store, SplitSettings(test=0.25))
    (path,) = (tmp_path / "splits").iterdir()
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=words):
        open_split(store, SplitSettings(test=0.25))


def test_a_patient_on_two_sides_is_refused(phantom_store, tmp_path):
    manifest = phantom_store.manifest.model_copy(deep=True)
    open_split(RecordStore(tmp_path, manifest), SplitSettings(test=0.25))
    for row in manifest.cases:
        row.patient_id = "same" if row.case_id in ("phantom_0000", "phantom_0001") else row.case_id
    (path,) = (tmp_path / "splits").iterdir()
    names = sorted(phantom_store.rows)
    values = {"train": names[:1], "validation": names[1:2], "test": names[2:]}
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match="patient same stands in train and in validation"):
        open_split(RecordStore(tmp_path, manifest), SplitSettings(test=0.25))


def test_one_patient_and_the_asked_for_check_say_that_they_overfit(tmp_path, phantom_store):
    one = open_store(phantom_experiment(tmp_path, "data.phantom.cases=1"))
    split = open_split(one, SplitSettings())
    assert split.overfit_check and split.train == split.validation == ("phantom_0000",)
    split = open_split(copy_store(phantom_store, tmp_path), SplitSettings(overfit_check=True))
    assert split.overfit_check and len(split.train) == 8 and split.train == split.validation


def test_the_file_is_named_after_what_it_depends_on(phantom_store, tmp_path):
    store = copy_store(phantom_store, tmp_path)
    for settings in (
        SplitSettings(test=0.25),
        SplitSettings(test=0.25, stratify="tumour_volume", seed=7),
        SplitSettings(method="kfold", folds=3, test=0),
        SplitSettings(method="kfold", folds=3, fold=2, test=0),
        SplitSettings(method="kfold", folds=3, test=0.25, stratify="tumour_volume"),
    ):
        open_split(store, settings)
    assert sorted(path.name for path in (tmp_path / "splits").iterdir()) == [
        "kfold-3_seed-0_test-0.25_stratified.json",
        "kfold-3_seed-0_test-0.json",
        "seed-0_validation-0.15_test-0.25.json",
        "seed-7_validation-0.15_test-0.25_stratified.json",
    ]


def test_each_fold_validates_once_and_the_test_cases_never_train(phantom_store, tmp_path):
    store = copy_store(phantom_store, tmp_path)
    splits = [
        open_split(store, SplitSettings(method="kfold", folds=3, fold=fold, test=0.25))
        for fold in range(3)
    ]
    (path,) = (tmp_path / "splits").iterdir()
    values = json.loads(path.read_text())
    assert set(values) == {"test", "folds"}
    assert [list(split.validation) for split in splits] == values["folds"]
    for split in splits:
        assert list(split.test) == values["test"] and len(split.test) == 2
        everyone = sorted([*split.train, *split.validation, *split.test])
        assert everyone == sorted(phantom_store.rows)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v["folds"][0].pop(), r"1 case\(s\) of the store are in no part"),
        (lambda v: v["folds"][1].append(v["folds"][0][0]), "1 stand twice"),
        (lambda v: v["folds"][2].clear(), "fold 2 is empty"),
        (lambda v: v.pop("test"), "is no split file"),
        (lambda v: v["folds"][0].extend(v["folds"].pop()), "split.fold=2 does not occur"),
    ],
)
def test_folds_that_do_not_match_are_refused(phantom_store, tmp_path, change, words):
    store = copy_store(phantom_store, tmp_path)
    settings = SplitSettings(method="kfold", folds=3, fold=2, test=0.25)
    open_split(store, settings)
    (path,) = (tmp_path / "splits").iterdir()
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=words):
        open_split(store, settings)


def test_a_patients_volume_is_in_ml_and_that_of_the_larger_case(phantom_store, tmp_path):
    """Seen by the blocks that stratified validation cases come from, one from each half."""
    manifest = phantom_store.manifest.model_copy(deep=True)
    # In voxels, patient A is the smallest; in mL its second case is the largest of all.
    scans = [("A", 10, 1.0), ("A", 20, 10.0), ("A", 15, 1.0)]
    scans += [(name, 900 - i, 1.0) for i, name in enumerate("BCDEF")]
    for row, (patient, voxels, size) in zip(manifest.cases, scans, strict=True):
        row.patient_id, row.spacing = patient, (size, size, size)
        row.voxels = {"NCR": voxels // 2, "ED": voxels - voxels // 2, "ET": 0}
    names = {row.case_id: row.patient_id for row in manifest.cases}
    drawn = set()
    for seed in range(12):
        folder = tmp_path / str(seed)
        folder.mkdir()
        settings = SplitSettings(validation=0.34, test=0, stratify="tumour_volume", seed=seed)
        split = open_split(RecordStore(folder, manifest), settings)
        chosen = {names[case] for case in split.validation}
        assert len(chosen & set("FED")) == len(chosen & set("CBA")) == 1
        drawn |= chosen
    assert drawn == set("ABCDEF")
