import pytest

from kerasseg.config.pipeline import SplitSettings
from kerasseg.errors import UserError
from kerasseg.records.split_files import read_split_csv
from kerasseg.records.splits import open_split
from kerasseg.records.store import RecordStore

PATIENTS = {"a1": "A", "a2": "A", "b": "B", "c": "C", "d": "D"}


def write(folder, text: str):
    path = folder / "split.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "text",
    [
        "case_id,split\na1,train\na2,train\nb,validation\nc,test\nd,train\n",
        "\ufeffpatient_id,split\nA,train\nB,val\nC,TEST\nD,Train\n",
        "Split , Patient_ID,site\ntrain, A ,x\n\nvalid,B,y\ntest,C\ntrain,D\nTRAIN,A,z\n",
        "case_id,patient_id,split\na1,?,train\na2,?,train\nb,?,val\nc,?,test\nd,?,train\n",
    ],
)
def test_names_of_cases_or_patients_and_the_words_of_a_side(tmp_path, text):
    parts = read_split_csv(write(tmp_path, text), PATIENTS)
    assert {side: sorted(cases) for side, cases in parts.items()} == {
        "train": ["a1", "a2", "d"],
        "validation": ["b"],
        "test": ["c"],
    }


def test_folds(tmp_path):
    path = write(tmp_path, "patient_id,fold\nA,0\nB,10\nC,test\nD,2\n")
    parts = read_split_csv(path, PATIENTS)
    assert list(parts) == ["fold 0", "fold 2", "fold 10", "test"]
    assert parts["fold 0"] == ["a1", "a2"] and parts["test"] == ["c"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected a column case_id or patient_id .* found nothing"),
        ("case_id;split\na1;train\n", "expected .* found case_id;split"),
        ("case_id,side\na1,train\n", "found case_id, side"),
        ("case_id,split,fold\na1,train,0\n", "one column split or fold"),
        (
            "patient_id,split\nA,train\nB,validation\nC,tets\n",
            "row 4: split is 'tets', expected train, validation or test",
        ),
        ("patient_id,split\nA\n", "row 2: split is ''"),
        ("patient_id,fold\n\nA,first\n", "row 3: fold is 'first', expected 0, 1, … or test"),
        ("patient_id,fold\nA,-1\n", "row 2: fold is '-1'"),
        (
            "patient_id,split\nA,train\nZ,test\nY,test\n",
            "row 3: patient_id 'Z' is not in the store",
        ),
        ("case_id,split\nA,train\n", "row 2: case_id 'A' is not in the store, whose first is 'a1'"),
        (
            "case_id,split\na1,train\nb,test\na1,test\n",
            "row 4: a1 stands in test, but above in train",
        ),
        (
            "patient_id,split\nA,train\nB,val\n",
            r"2 patient_id\(s\) of the store have no row, the first C",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_row(tmp_path, text, words):
    with pytest.raises(UserError, match=words) as caught:
        read_split_csv(write(tmp_path, text), PATIENTS)
    assert "split.csv" in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"split.file: .*none.csv cannot be read: No such file"):
        read_split_csv(tmp_path / "none.csv", PATIENTS)


def test_a_case_that_was_left_out_of_the_store_may_be_named(tmp_path):
    path = write(tmp_path, "case_id,split\na1,train\na2,train\nb,val\nc,train\nd,train\nbad,test\n")
    with pytest.raises(UserError, match="'bad' is not in the store"):
        read_split_csv(path, PATIENTS)
    assert read_split_csv(path, PATIENTS, {"bad"})["test"] == []


def open_csv(store: RecordStore, folder, text: str, **more):
    return open_split(store, SplitSettings(method="file", file=write(folder, text), **more))


def test_a_split_file_is_read_each_time_and_never_copied(phantom_store, tmp_path):
    store = RecordStore(tmp_path / "store", phantom_store.manifest)
    names = list(phantom_store.rows)
    sides = ["train"] * 5 + ["validation", "validation", "test"]
    rows = [f"{name},{side}\n" for name, side in zip(names, sides, strict=True)]
    split = open_csv(store, tmp_path, "case_id,split\n" + "".join(rows))
    assert (split.train, split.validation, split.test) == (
        tuple(names[:5]),
        tuple(names[5:7]),
        tuple(names[7:]),
    )
    rows[0] = f"{names[0]},test\n"
    assert open_csv(store, tmp_path, "case_id,split\n" + "".join(rows)).test == (names[0], names[7])
    assert not store.root.exists()


def test_the_chosen_fold_validates_and_the_others_train(phantom_store, tmp_path):
    names = list(phantom_store.rows)
    folds = [0, 0, 1, 1, 2, 2, "test", "test"]
    text = "case_id,fold\n" + "".join(f"{n},{f}\n" for n, f in zip(names, folds, strict=True))
    split = open_csv(phantom_store, tmp_path, text, fold=1)
    assert split.train == (*names[0:2], *names[4:6])
    assert split.validation == tuple(names[2:4]) and split.test == tuple(names[6:])
    with pytest.raises(UserError, match=r"split.fold=3 does not occur .* whose folds are 0, 1, 2"):
        open_csv(phantom_store, tmp_path, text, fold=3)
    with pytest.raises(UserError, match="fold 0 is the only one, so nobody trains"):
        open_csv(phantom_store, tmp_path, "case_id,fold\n" + "".join(f"{n},0\n" for n in names))


@pytest.mark.parametrize("column", ["split", "fold"])
def test_a_patient_on_two_sides_or_in_two_folds_is_refused(phantom_store, tmp_path, column):
    manifest = phantom_store.manifest.model_copy(deep=True)
    words = ["train", "validation"] if column == "split" else ["0", "1"]
    for row in manifest.cases[:2]:
        row.patient_id = "same"
    rows = [f"{row.case_id},{words[i % 2]}\n" for i, row in enumerate(manifest.cases)]
    text = f"case_id,{column}\n" + "".join(rows)
    with pytest.raises(UserError, match=r"patient same stands in .* and in"):
        open_csv(RecordStore(tmp_path, manifest), tmp_path, text)


def test_an_empty_side_is_refused(phantom_store, tmp_path):
    rows = "".join(f"{name},train\n" for name in phantom_store.rows)
    with pytest.raises(UserError, match="validation is empty"):
        open_csv(phantom_store, tmp_path, "case_id,split\n" + rows)


def test_a_fold_asked_of_a_file_without_folds_is_refused(phantom_store, tmp_path):
    rows = "".join(
        f"{name},{'test' if i else 'train'}\n" for i, name in enumerate(phantom_store.rows)
    )
    with pytest.raises(UserError, match=r"split.fold=2: .* has a column split"):
        open_csv(phantom_store, tmp_path, "case_id,split\n" + rows, fold=2)
