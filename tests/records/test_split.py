import json
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasseg.settings.store import SplitSettings
from kerasseg.errors import UserError
from kerasseg.records.split import make_split, open_split
from kerasseg.records.store import RecordStore, open_store
from tests.conftest import phantom_experiment


@given(
    st.dictionaries(st.text("abcdef", min_size=1), st.sampled_from("PQRSTUVW"), min_size=2),
    st.floats(0.05, 0.45),
    st.floats(0.0, 0.45),
    st.integers(0, 99),
)
def test_every_case_once_and_no_patient_on_two_sides(patients, validation, test, seed):
    if len(set(patients.values())) < 2:
        return
    settings = SplitSettings(validation=validation, test=test, seed=seed)
    split = make_split(patients, settings)
    assert split == make_split(dict(reversed(patients.items())), settings), "order of files is moot"
    assert sorted(split.train + split.validation + split.test) == sorted(patients)
    sides = defaultdict(set)
    for side in ("train", "validation", "test"):
        for case in getattr(split, side):
            sides[patients[case]].add(side)
    assert all(len(side) == 1 for side in sides.values())
    assert split.train and split.validation


def test_shares_are_kept_and_seeds_differ():
    patients = {f"c{i:03d}": f"p{i:03d}" for i in range(100)}
    split = make_split(patients, SplitSettings(validation=0.1, test=0.2))
    assert [len(split.train), len(split.validation), len(split.test)] == [70, 10, 20]
    assert split != make_split(patients, SplitSettings(validation=0.1, test=0.2, seed=1))


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
