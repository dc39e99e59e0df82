import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import dice as scipy_dissimilarity

from kerasseg.metrics.class_dice import ClassDice
from kerasseg.metrics.dice import dice

MASKS = hnp.arrays(bool, (3, 4, 5))


@given(MASKS, MASKS)
def test_against_scipy(truth, prediction):
    if truth.any() or prediction.any():
        expected = 1 - scipy_dissimilarity(truth.ravel(), prediction.ravel())
        assert dice(truth, prediction) == pytest.approx(expected)


def test_empty_masks_follow_brats():
    empty, some = np.zeros((2, 3, 4), bool), np.ones((2, 3, 4), bool)
    assert dice(empty, empty) == 1 and dice(empty, some) == 0 and dice(some, empty) == 0


def test_the_metric_accumulates_over_batches_instead_of_averaging_ratios():
    rng = np.random.default_rng(0)
    truth = rng.random((6, 3, 4, 5, 3)) < np.linspace(0.05, 0.9, 6)[:, None, None, None, None]
    probability = rng.random(truth.shape).astype(np.float32)
    metrics = [ClassDice(3, i, threshold=0.4) for i in range(3)] + [ClassDice(3, threshold=0.4)]
    for metric in metrics:
        for batch in (slice(0, 1), slice(1, 5), slice(5, 6)):
            metric.update_state(truth[batch].astype(np.uint8), probability[batch])
    expected = [dice(truth[..., c], probability[..., c] >= 0.4) for c in range(3)]
    assert [float(m.result()) for m in metrics[:3]] == pytest.approx(expected, rel=1e-5)
    assert float(metrics[3].result()) == pytest.approx(np.mean(expected), rel=1e-5)
    metrics[0].reset_state()
    assert float(metrics[0].result()) == 1, "nothing seen: empty in truth and prediction"
    assert ClassDice.from_config(metrics[1].get_config()).class_index == 1


def test_of_a_single_channel_the_mean_is_the_channel():
    rng = np.random.default_rng(0)
    truth, probability = rng.random((2, 5, 6, 1)) < 0.4, rng.random((2, 5, 6, 1))
    mean, channel = ClassDice(1, name="dice"), ClassDice(1, 0, name="dice_tumour")
    for metric in (mean, channel):
        metric.update_state(truth.astype(np.uint8), probability.astype(np.float32))
    expected = dice(truth, probability >= 0.5)
    assert float(mean.result()) == float(channel.result()) == pytest.approx(expected)
