import numpy as np
import pytest

from kerasseg import anatomy
from kerasseg.config.load import load_experiment
from kerasseg.datasets.discovery import discover
from kerasseg.datasets.phantom import make_phantom
from kerasseg.records.normalise import z_score
from tests.conftest import SHAPE


def test_same_seed_same_voxels_other_seed_others():
    first, again = (make_phantom(SHAPE, 1, 2) for _ in range(2))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (make_phantom(SHAPE, 2, 2)[0] != first[0]).any()
    assert (make_phantom(SHAPE, 1, 3)[0] != first[0]).any()


def test_shape_air_and_kinds(phantoms):
    for index, (image, label) in enumerate(phantoms):
        assert image.shape == (*SHAPE, 4) and image.dtype == np.float32
        assert label.shape == SHAPE and label.dtype == np.uint8
        brain = image.any(axis=-1)
        assert (image[brain] > 0).all(), "air is exactly 0 and the brain above it"
        assert not label[~brain].any(), "no tumour in the air"
        present = set(np.unique(label)) - {0}
        expected = {6: {anatomy.NCR, anatomy.ED}, 7: set()}.get(index, {1, 2, 3})
        assert present == expected


def test_modalities_have_the_contrast_of_their_names(phantoms):
    flair, t1, t1ce, t2 = range(4)
    image, label = phantoms[0]
    means = {c: [image[label == c, m].mean() for m in range(4)] for c in (1, 2, 3)}
    brain = (image.any(-1)) & (label == 0)
    normal = [image[brain, m].mean() for m in range(4)]
    assert means[anatomy.ED][flair] > normal[flair], "edema is bright on FLAIR"
    assert means[anatomy.ED][t2] > normal[t2], "and on T2"
    assert means[anatomy.NCR][t1] < normal[t1], "necrosis is dark on T1"
    assert means[anatomy.ET][t1ce] > normal[t1ce], "the rim takes up contrast"
    assert means[anatomy.ET][t1ce] / normal[t1ce] > means[anatomy.ET][t1] / normal[t1]


def best_threshold_dice(values: np.ndarray, truth: np.ndarray) -> float:
    """Best Dice of any band low <= value < high, by cumulative counts over a fine grid."""
    edges = np.linspace(values.min(), values.max() + 1e-6, 80)
    inside = np.r_[0, np.histogram(values[truth], edges)[0].cumsum()]
    outside = np.r_[0, np.histogram(values[~truth], edges)[0].cumsum()]
    hits = inside[None, :] - inside[:, None]
    false = outside[None, :] - outside[:, None]
    upper = np.triu_indices(len(edges), 1)
    return float((2 * hits[upper] / (hits[upper] + false[upper] + truth.sum())).max())


def test_no_threshold_on_one_modality_solves_it():
    """Even the best band, chosen with the truth in hand, stays under 0.6 for every target."""
    cases = [make_phantom((48, 64, 56), 0, index) for index in (0, 2, 4, 6)]
    scored = [(z_score(image)[0], image.any(-1), label) for image, label in cases]
    labels = np.concatenate([label[brain] for _, brain, label in scored])
    for ids in [(1,), (2,), (3,), (1, 2, 3), (1, 3)]:
        truth = np.isin(labels, ids)
        scores = [
            best_threshold_dice(np.concatenate([z[brain][:, m] for z, brain, _ in scored]), truth)
            for m in range(4)
        ]
        assert max(scores) < 0.6, f"{ids}: {scores}"


@pytest.mark.parametrize("shape", [(16, 17, 33), (40, 16, 20)])
def test_any_size(shape):
    image, label = make_phantom(shape, 0, 0)
    assert image.shape == (*shape, 4) and label.any()


def test_discover_makes_the_cases_asked_for():
    experiment = load_experiment(
        None, ["data.phantom.cases=3", "data.modalities=[t2, flair]", "data.phantom.seed=4"]
    )
    sources = discover(experiment.data)
    case = sources[1].load()
    assert [s.case_id for s in sources] == ["phantom_0000", "phantom_0001", "phantom_0002"]
    assert case.modalities == ("t2", "flair")
    whole, _ = make_phantom(experiment.data.phantom.shape, 4, 1)
    np.testing.assert_array_equal(case.image, whole[..., [3, 0]])
