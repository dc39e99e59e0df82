"""The loop over the cases of a store, for every target, and the figures of the first cases."""

import numpy as np
import pytest

from kerasseg import anatomy
from kerasseg.config.evaluation import MetricsSection
from kerasseg.evaluation.evaluate import dice_of_cases, score_cases
from kerasseg.evaluation.report import evaluation_summary
from kerasseg.evaluation.report_figures import draw_first_cases
from kerasseg.evaluation.scores import score_columns
from kerasseg.targets import label_to_masks

CASES = {"validation": ["phantom_0000", "phantom_0001"], "test": ["phantom_0002"]}


class Shifted:
    """Segments each case rightly, but for the first axial slice with tumour, which it misses."""

    prompt = ""
    takes_prompt = False

    def __init__(self, store, target):
        self.labels = [store.load(case_id).case.label for ids in CASES.values() for case_id in ids]
        self.target = target

    def probabilities(self, image):
        label = self.labels.pop(0).copy()
        assert label.shape == image.shape[:3]
        label[(label > 0).any(axis=(1, 2)).argmax()] = 0
        return label_to_masks(label, self.target).astype(np.float32)

    def masks_from_probabilities(self, probabilities, spacing):
        assert tuple(spacing) == (1.0, 1.0, 1.0)
        return probabilities >= 0.5


@pytest.mark.parametrize("target", anatomy.TARGETS)
def test_scores_and_figures(phantom_store, target):
    settings = MetricsSection(resamples=100)
    results = score_cases(Shifted(phantom_store, target), phantom_store, CASES, settings)
    assert {side: [s.case_id for s in r.scores] for side, r in results.items()} == CASES
    for side, found in results.items():
        for score in found.scores:
            assert tuple(score.dice) == score_columns(target) and score.split == side
            assert 0.8 < score.dice.get("WT", score.dice.get("tumour")) < 1
            assert score.seconds >= 0 and score.patient_id == score.case_id
    again = dice_of_cases(
        Shifted(phantom_store, target), phantom_store, [c for ids in CASES.values() for c in ids]
    )
    scores = [score for found in results.values() for score in found.scores]
    assert [score.dice for score in again] == [score.dice for score in scores]
    summary = evaluation_summary(results)
    assert summary["cases"] == {"validation": 2, "test": 1} == summary["patients"]
    name = anatomy.tumour_channels(target)[0]
    mean = np.mean([score.dice[name] for score in results["validation"].scores])
    assert summary["dice"]["validation"][name] == pytest.approx(mean)
    assert summary["metrics"]["validation"][name]["dice"]["mean"] == pytest.approx(mean, abs=1e-6)

    drawings = list(draw_first_cases(results, phantom_store, 1))
    assert [drawing.name for drawing in drawings] == [
        f"{case_id}_{kind}"
        for case_id in ("phantom_0000", "phantom_0002")
        for kind in ("overlay", "views")
    ]
    channels = anatomy.tumour_channels(target)
    dice = ", ".join(f"{name} {scores[0].dice[name]:.2f}" for name in channels)
    title = drawings[0].figure.get_suptitle()
    assert title.startswith(f"phantom_0000 (validation), Dice {dice}, axial slice")


def test_a_side_without_cases_is_left_out(phantom_store):
    cases = {"validation": CASES["validation"], "test": []}
    results = score_cases(Shifted(phantom_store, "binary"), phantom_store, cases, MetricsSection())
    assert set(evaluation_summary(results)["metrics"]) == {"validation"}
    assert evaluation_summary({})["dice"] == {}, "of a run that was not evaluated"
