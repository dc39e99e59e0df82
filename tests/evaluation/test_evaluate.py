"""Whole cases of a store, of every target."""

import pytest
from matplotlib.figure import Figure

from kerasseg import anatomy
from kerasseg.evaluation.evaluate import evaluate
from kerasseg.evaluation.scores import score_columns
from kerasseg.targets import label_to_masks


class Shifted:
    """Segments each case rightly, but for the first axial slice with tumour, which it misses."""

    def __init__(self, store, case_ids, target):
        self.labels = [store.load(case_id).case.label for case_id in case_ids]
        self.target = target

    def masks(self, image, spacing):
        assert tuple(spacing) == (1.0, 1.0, 1.0)
        label = self.labels.pop(0).copy()
        assert label.shape == image.shape[:3]
        label[(label > 0).any(axis=(1, 2)).argmax()] = 0
        return label_to_masks(label, self.target)


@pytest.mark.parametrize("target", anatomy.TARGETS)
def test_scores_and_figures(phantom_store, tmp_path, target, monkeypatch):
    titles = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda f, *a, **k: (titles.append(f.get_suptitle()), save(f, *a, **k))
    )
    splits = {"validation": ["phantom_0000", "phantom_0001"], "test": ["phantom_0002"]}
    predictor = Shifted(phantom_store, [c for ids in splits.values() for c in ids], target)
    scores = evaluate(predictor, phantom_store, splits, target, tmp_path, overlays=1)
    assert [(s.split, s.case_id) for s in scores] == [
        ("validation", "phantom_0000"),
        ("validation", "phantom_0001"),
        ("test", "phantom_0002"),
    ]
    assert [len(score.figures) for score in scores] == [2, 0, 2]
    drawn = {name for score in scores for name in score.figures}
    assert drawn == {path.name for path in tmp_path.iterdir()}
    for score in scores:
        assert tuple(score.dice) == score_columns(target)
        whole = score.dice.get("WT", score.dice.get("tumour"))
        assert 0.8 < whole < 1
    channels = anatomy.tumour_channels(target)
    words = ", ".join(f"{name} {scores[0].dice[name]:.2f}" for name in channels)
    assert titles[0].startswith(f"phantom_0000 (validation), Dice {words}, axial slice")
