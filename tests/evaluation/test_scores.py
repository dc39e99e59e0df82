import csv

import numpy as np
import pytest

from kerasseg.evaluation.figures.drawing import masks_to_label
from kerasseg.evaluation.scores import mean_scores, score_case, score_columns, write_metrics
from kerasseg.metrics.dice import dice


def case(seed=0, channels=3):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 4, (4, 5, 6)).astype(np.uint8), rng.random((4, 5, 6, channels)) < 0.4


def test_regions_are_unions_of_subregions():
    label, masks = case()
    scores = score_case("a", "test", label, masks, "subregions").dice
    assert tuple(scores) == score_columns("subregions") == ("NCR", "ED", "ET", "mean", "WT", "TC")
    for index, name in enumerate(("NCR", "ED", "ET")):
        assert scores[name] == dice(label == index + 1, masks[..., index])
    assert scores["mean"] == pytest.approx(np.mean([scores[n] for n in ("NCR", "ED", "ET")]))
    assert scores["WT"] == dice(label > 0, masks.any(axis=-1))
    assert scores["TC"] == dice((label == 1) | (label == 3), masks[..., 0] | masks[..., 2])


def test_the_whole_tumour_is_any_label_and_has_no_second_column():
    label, masks = case(channels=1)
    scores = score_case("a", "test", label, masks, "binary").dice
    assert score_columns("binary") == ("tumour",)
    assert scores == {"tumour": dice(label > 0, masks[..., 0])}
    assert score_case("a", "test", label, label[..., None] > 0, "binary").dice == {"tumour": 1}


def test_a_perfect_case_and_an_empty_one():
    label, _ = case()
    masks = np.stack([label == 1, label == 2, label == 3], axis=-1)
    perfect = score_case("a", "test", label, masks, "subregions").dice
    assert set(perfect.values()) == {1.0}
    np.testing.assert_array_equal(masks_to_label(masks, "subregions"), label)
    empty = score_case("a", "test", label * 0, masks & False, "subregions").dice
    assert set(empty.values()) == {1.0}


def test_where_masks_overlap_the_innermost_is_drawn():
    masks = np.array([[1, 1, 1], [1, 1, 0], [0, 1, 1], [0, 1, 0], [0, 0, 0]], bool)
    np.testing.assert_array_equal(masks_to_label(masks, "subregions"), [3, 1, 3, 2, 0])
    np.testing.assert_array_equal(masks_to_label(masks[:, :1], "binary"), [1, 1, 0, 0, 0])


@pytest.mark.parametrize(("target", "channels"), [("subregions", 3), ("binary", 1)])
def test_the_table(tmp_path, target, channels):
    scores = [score_case(f"c{i}", "test", *case(i, channels), target) for i in range(3)]
    write_metrics(tmp_path / "metrics.csv", scores, target)
    with (tmp_path / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    columns = [f"dice_{name}" for name in score_columns(target)]
    assert list(table[0]) == ["case_id", "split", *columns]
    means = mean_scores(scores)
    assert tuple(means) == score_columns(target)
    for name, mean in means.items():
        assert mean == pytest.approx(np.mean([float(r[f"dice_{name}"]) for r in table]), abs=1e-6)
    assert mean_scores([]) == {}
