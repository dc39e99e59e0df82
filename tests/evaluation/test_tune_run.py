"""Post-processing that is chosen on validation cases and kept with the run."""

import numpy as np
import pytest
import yaml

from kerasseg.config.evaluation import MetricsSection, PostprocessingSettings
from kerasseg.errors import UserError
from kerasseg.evaluation.evaluate_runs import evaluate_run, read_finished_run
from kerasseg.evaluation.tune_run import tune_run
from kerasseg.inference.load_run import load_run
from kerasseg.inference.tune_postprocessing import TUNED_FILE, write_tuned
from kerasseg.metrics.overlap import dice
from tests.evaluation.test_evaluate_runs import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("tuned"))


def validation_dice(run):
    """Mean of the classes, over the cases, from the masks that evaluation makes."""
    results, _ = evaluate_run(read_finished_run(run), "validation", MetricsSection(resamples=100))
    scores = []
    for score in results.scores:
        truth, masks = results.pairs[score.case_id].unpack()
        scores += [dice(truth == i + 1, masks[..., i]) for i in range(3)]
    return float(np.mean(scores))


def test_what_is_chosen_is_kept_and_used(run):
    """A network that has learnt nothing paints everywhere: most of it is better removed."""
    before = validation_dice(run)
    tuned = tune_run(run)
    assert tuned.before == pytest.approx(before)
    assert tuned.after > tuned.before, "a threshold alone gains"
    assert tuned.settings != PostprocessingSettings()
    assert tuned.path == run / TUNED_FILE
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


def test_settings_of_the_command_line_win(run):
    write_tuned(run, PostprocessingSettings(minimum_enhancing=100.0))
    loaded = load_run(run, ["postprocessing.minimum_enhancing=7"])
    assert loaded.predictor.postprocessing.minimum_enhancing == 7.0


@pytest.mark.parametrize("text", ["{", "nonsense: 1", "thresholds: {WT: 0.4}"])
def test_a_file_that_cannot_be_used_is_named(text, run):
    (run / TUNED_FILE).write_text(text)
    for read in (read_finished_run, load_run):
        with pytest.raises(UserError, match=rf"{TUNED_FILE}: is no post-processing .* delete"):
            read(run)
    (run / TUNED_FILE).unlink()
