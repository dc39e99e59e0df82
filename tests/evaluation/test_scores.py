import csv

import numpy as np
import pytest

from kerasseg.evaluation.figures.drawing import masks_to_label
from kerasseg.evaluation.scores import SCORES, mean_scores, score_case, write_metrics
from kerasseg.metrics.dice import dice


def case(seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 4, (4, 5, 6)).astype(np.uint8), rng.random((4, 5, 6, 3)) < 0.4


def test_regions_are_unions_of_subregions():
    label, masks = case()
    scores = score_case("a", "test", label, masks).dice
    assert list(scores) == list(SCORES)
    for index, name in enumerate(("NCR", "ED", "ET")):
        assert scores[name] == dice(label == index + 1, masks[..., index])
    assert scores["mean"] == pytest.approx(np.mean([scores[n] for n in ("NCR", "ED", "ET")]))
    assert scores["WT"] == dice(label > 0, masks.any(axis=-1))
    assert scores["TC"] == dice((label == 1) | (label == 3), masks[..., 0] | masks[..., 2])


def test_a_perfect_case_and_an_empty_one():
    label, _ = case()
    masks = np.stack([label == 1, label == 2, label == 3], axis=-1)
    assert set(score_case("a", "test", label, masks).dice.values()) == {1.0}
    np.testing.assert_array_equal(masks_to_label(masks), label)
    empty = score_case("a", "test", label * 0, masks & False).dice
    assert set(empty.values()) == {1.0}


def test_the_table(tmp_path):
    scores = [score_case(f"c{i}", "test", *case(i)) for i in range(3)]
    write_metrics(tmp_path / "metrics.csv", scores)
    with (tmp_path / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    assert list(table[0])[:5] == ["case_id", "split", "dice_NCR", "dice_ED", "dice_ET"]
    means = mean_scores(scores)
    for name in SCORES:
        column = [float(row[f"dice_{name}"]) for row in table]
        assert means[name] == pytest.approx(np.mean(column), abs=1e-6)
    assert mean_scores([]) == {}
