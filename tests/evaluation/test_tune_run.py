"""Post-processing that is chosen on validation cases and kept with the run."""

import errno
from unittest.mock import Mock

import numpy as np
import pytest
import yaml

from kerasseg.config.evaluation import PostprocessingSettings
from kerasseg.errors import UserError
from kerasseg.evaluation.evaluate_runs import evaluate_run
from kerasseg.evaluation.tune_postprocessing import tune_run
from kerasseg.metrics.overlap import dice
from kerasseg.prediction.model import load_run
from kerasseg.run import POSTPROCESSING, read_run
from tests.evaluation.test_evaluate_runs import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("tuned"))


def validation_dice(run):
    """Mean of the classes, over the cases, from the masks that evaluation makes."""
    results, _ = evaluate_run(read_run(run), "validation")
    scores = []
    for score in results.scores:
        truth, masks = results.pairs[score.case_id].unpack()
        scores += [dice(truth == i + 1, masks[..., i]) for i in range(3)]
    return float(np.mean(scores))


def test_what_is_chosen_is_kept_and_used(run, monkeypatch):
    """A network that has learnt nothing paints everywhere: most of it is better removed."""
    before = validation_dice(run)
    with monkeypatch.context() as patch:
        full = OSError(errno.ENOSPC, "No space left on device")
        patch.setattr(np, "savez", Mock(side_effect=full))
        with pytest.raises(UserError, match=r"Writing probabilities into .*TMPDIR=FOLDER"):
            tune_run(run)
    tuned = tune_run(run)
    assert tuned.before == pytest.approx(before)
    assert tuned.after > tuned.before, "a threshold alone gains"
    assert tuned.settings != PostprocessingSettings()
    assert tuned.path == run / POSTPROCESSING
    assert PostprocessingSettings.model_validate(yaml.safe_load(tuned.path.read_text())) == (
        tuned.settings
    )
    assert validation_dice(run) == pytest.approx(tuned.after)
    assert load_run(run).predictor.postprocessing == tuned.settings
    again = tune_run(run)
    assert (again.before, again.after, again.settings) == (
        tuned.before,
        tuned.after,
        tuned.settings,
    )
