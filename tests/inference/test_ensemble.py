"""Several predictors as one, against sums written out."""

import keras
import numpy as np
import pytest

from kerasseg.config.evaluation import PostprocessingSettings
from kerasseg.config.experiment import EvaluationSettings, PipelineSettings
from kerasseg.config.model import ModelSettings
from kerasseg.errors import UserError
from kerasseg.inference.ensemble import Ensemble
from kerasseg.inference.predictor import Predictor
from kerasseg.models.unet import unet

VOLUME = np.random.default_rng(0).normal(size=(6, 9, 13, 2)).astype(np.float32)


def predictor(dimensions, target, seed, **options):
    keras.utils.set_random_seed(seed)
    settings = ModelSettings(dimensions=dimensions, target=target, features=(4,), bottleneck=6)
    network = unet(settings, 2)
    head = network.get_layer("head")
    head.set_weights([w * 4 for w in head.get_weights()])
    patches = PipelineSettings(patch_size=(4, 8, 6)[3 - dimensions :])
    evaluation = EvaluationSettings(window_batch=4, **options)
    return Predictor(network, patches, evaluation, target=target)


@pytest.fixture(scope="module", params=["labels", "regions"])
def members(request):
    """A 3-D network and two 2-D ones of other thresholds."""
    target = request.param
    options = {} if target == "labels" else {"threshold": 0.6}
    return [
        predictor(3, target, 1),
        predictor(2, target, 2, **options),
        predictor(2, target, 3, flips=("height",)),
    ]


def test_the_mean_of_slices_and_volumes(members):
    ensemble = Ensemble(members, threshold=0.45)
    found = ensemble.probabilities(VOLUME)
    each = [member.probabilities(VOLUME) for member in members]
    assert all(np.abs(one - found).max() > 0.05 for one in each)
    np.testing.assert_allclose(found, sum(each) / 3, atol=1e-6)
    for one, member in zip(each, ensemble.members(VOLUME), strict=True):
        np.testing.assert_allclose(one, member, atol=1e-6)
    masks = ensemble.masks(VOLUME)
    if ensemble.target == "labels":
        np.testing.assert_array_equal(masks.argmax(-1), found.argmax(-1))
    else:
        np.testing.assert_array_equal(masks, found >= 0.45)


@pytest.mark.parametrize("count", [2, 3])
def test_the_majority(members, count):
    ensemble = Ensemble(members[:count], combine="vote", threshold=0.99)
    masks = [member.masks(VOLUME) for member in members[:count]]
    votes = np.zeros(masks[0].shape, int)
    for mask in masks:
        votes += mask
    np.testing.assert_allclose(ensemble.probabilities(VOLUME), votes / count, atol=1e-6)
    found = ensemble.masks(VOLUME)
    if ensemble.target == "labels":
        np.testing.assert_array_equal(found.argmax(-1), votes.argmax(-1))
        assert (found.sum(-1) == 1).all()
    else:
        np.testing.assert_array_equal(found, 2 * votes >= count)
    assert any((found != mask).any() for mask in masks)


def test_post_processing_of_the_ensemble_knows_the_spacing():
    members = [predictor(3, "regions", seed) for seed in (1, 2)]
    settings = PostprocessingSettings(minimum_volume={"WT": 4.5}, thresholds={"WT": 0.55})
    ensemble = Ensemble(members, postprocessing=settings)
    plain = Ensemble(members, postprocessing=settings.model_copy(update={"minimum_volume": {}}))
    one, eight = ensemble.masks(VOLUME), ensemble.masks(VOLUME, (2.0, 2.0, 2.0))
    np.testing.assert_array_equal(eight, plain.masks(VOLUME))
    assert one[..., 0].sum() < eight[..., 0].sum()
    np.testing.assert_array_equal(eight[..., 0], plain.probabilities(VOLUME)[..., 0] >= 0.55)


def test_ensembles_are_predictors_too(members):
    nested = Ensemble([Ensemble(members[:1]), members[1]])
    flat = Ensemble(members[:2])
    np.testing.assert_allclose(nested.probabilities(VOLUME), flat.probabilities(VOLUME), atol=1e-6)
    assert nested.name == "unet_3d + unet_2d"


def test_other_targets_are_refused_by_name():
    members = [predictor(3, "regions", 1), predictor(2, "binary", 1)]
    with pytest.raises(UserError, match="unet_3d predicts regions, but unet_2d predicts binary"):
        Ensemble(members)
    with pytest.raises(UserError, match="at least one predictor"):
        Ensemble([])
