import pytest

from kerasseg.errors import UserError
from kerasseg.records.splits import Split
from kerasseg.training.checks import leave_out_damaged


class Store:
    """Of which some cases are damaged; remembers what was read."""

    def __init__(self, damaged):
        self.damaged = damaged
        self.read = []

    def damaged_records(self, case_ids):
        self.read += list(case_ids)
        return {c: f"shard-0: the record of {c} is cut." for c in self.read if c in self.damaged}


SPLIT = Split(("a", "b", "c"), ("d", "e"), ("f",))


def test_damaged_cases_leave_every_side_in_its_order():
    store = Store({"b", "d", "f"})
    split, damaged = leave_out_damaged(store, SPLIT)
    assert split == Split(("a", "c"), ("e",), ())
    assert damaged == {c: f"shard-0: the record of {c} is cut." for c in ("b", "d", "f")}
    assert sorted(store.read) == list("abcdef"), "every record is read once"
    assert leave_out_damaged(Store(()), SPLIT) == (SPLIT, {})


def test_an_over_fit_check_reads_each_record_once_and_stays_one():
    cases = ("a", "b")
    store = Store({"a"})
    split, _ = leave_out_damaged(store, Split(cases, cases, (), overfit_check=True))
    assert split == Split(("b",), ("b",), (), overfit_check=True)
    assert store.read == ["a", "b"]


@pytest.mark.parametrize(("side", "lost"), [("train", "abc"), ("validation", "de")])
def test_a_side_that_is_needed_must_not_become_empty(side, lost):
    message = (
        f"records.on_damaged_record=skip leaves no {side} case: all {len(lost)} of them are "
        f"damaged, the first: shard-0: the record of {lost[0]} is cut. Convert anew"
    )
    with pytest.raises(UserError, match=message):
        leave_out_damaged(Store(set(lost)), SPLIT)
