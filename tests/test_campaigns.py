"""benchmarks/: the folds, the runs and the scores of the campaigns on real data."""

from collections import Counter

from benchmarks.lgg_folds import CHOOSING, FOLDS, draw_folds, main, read_folds, sides_of
from kerasseg.records.split_files import check_parts, read_split_csv


def test_folds_of_lgg_are_those_that_their_seed_draws_and_fit_a_config(tmp_path):
    rows = read_folds()
    assert draw_folds({c: (row.voxels, row.copied) for c, row in rows.items()}) == rows
    assert len(rows) == 53
    assert sorted(Counter(row.fold for row in rows.values()).values()) == [10, 10, 11, 11, 11]
    assert len({row.fold for row in rows.values() if row.copied}) == 4
    patients = {case_id: case_id[:12] for case_id in rows}
    for fold in range(FOLDS):
        main(str(fold), tmp_path / "split.csv")
        parts = read_split_csv(tmp_path / "split.csv", patients)
        check_parts(tmp_path / "split.csv", parts, patients, "")
        assert parts["test"] == [c for c, row in rows.items() if row.fold == fold]
        assert len(parts["validation"]) == CHOOSING


def test_who_chooses_for_a_fold_trains_for_the_others():
    rows = read_folds()
    by_fold = [sides_of(rows, fold) for fold in range(FOLDS)]
    for case_id in rows:
        sides = Counter(sides[case_id] for sides in by_fold)
        assert sides["test"] == 1
        assert sides["validation"] <= 1
