"""Against panoptica 2.1.7, which needs an older NumPy: it runs in an environment of its own.

What is not compared, as it counts otherwise than we do:

- Empty masks: every package has rules of its own for them, which are no measurements. Dice and IoU
  are compared where one mask is empty, and are 0.
- ASSD is the mean of the two directions' means, ours (as MONAI's and MedPy's) that over all surface
  voxels; HD95 is one percentile of both directions together, ours the larger of two; the surface
  Dice is the mean of the two directions' shares, ours the share of all surface voxels. So its
  numbers are compared with what its rules make of our distances.
- A predicted lesion belongs to one lesion of the truth, that of largest IoU; ours may find several.
  Found, invented and missed lesions are compared where no predicted one meets several.
- Panoptic, recognition and segmentation quality over lesions: our lesion-wise scores are those of
  BraTS 2023, which joins lesions by dilation and counts what was missed or invented. None of its
  thresholds and matchings gives them.
"""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from kerasseg.metrics.case_metrics import case_metrics
from kerasseg.metrics.surface import SurfaceDistances
from tests.metrics.masks import pairs
from tests.own_environment import PANOPTICA, own_environment

SCRIPT = Path(__file__).with_name("panoptica_scores.py")
PAIRS = list(pairs(200, seed=11))
MASKS = {"dice": "sq_dsc", "iou": "sq", "volume_error_relative": "sq_rvd"}
"""Our name of what compares whole masks -> its own."""
CLOSE = {"rel": 1e-4, "abs": 1e-4}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What it says of each pair, metric by metric."""
    python = own_environment(PANOPTICA)
    folder = tmp_path_factory.mktemp("panoptica")
    given, scores = folder / "pairs.npz", folder / "scores.npz"
    truth, prediction, spacing = (np.array(values) for values in zip(*PAIRS, strict=True))
    np.savez(given, truth=truth, prediction=prediction, spacing=spacing)
    done = subprocess.run(
        [python, SCRIPT, given, scores], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(scores) as values:
        return dict(values)


def test_overlap_and_volume(found):
    compared = 0
    for i, (truth, prediction, spacing) in enumerate(PAIRS):
        ours = case_metrics(truth, prediction, spacing).values
        if truth.any() or prediction.any():
            assert ours["dice"] == pytest.approx(found["dsc"][i], **CLOSE)
            assert ours["iou"] == pytest.approx(found["iou"][i], **CLOSE)
        if truth.any() and prediction.any():
            compared += 1
            for name, theirs in MASKS.items():
                assert ours[name] == pytest.approx(found[theirs][i], **CLOSE), name
    assert compared > 100


def test_surface_distances(found):
    compared = 0
    for i, (truth, prediction, spacing) in enumerate(PAIRS):
        if not (truth.any() and prediction.any()):
            continue
        compared += 1
        distances = SurfaceDistances.measure(truth, prediction, spacing)
        both = distances.of_truth, distances.of_prediction
        made_of_ours = {
            "sq_assd": np.mean([way.mean() for way in both]),
            "sq_hd": max(way.max() for way in both),
            "sq_hd95": np.percentile(np.concatenate(both), 95),
            # Its tolerance is the shortest side of a voxel.
            "sq_nsd": np.mean([(way <= min(spacing) + 1e-6).mean() for way in both]),
        }
        for name, value in made_of_ours.items():
            assert value == pytest.approx(found[name][i], **CLOSE), (name, spacing)
    assert compared > 100


def test_lesions(found):
    compared = of_several = 0
    for i, (truth, prediction, spacing) in enumerate(PAIRS):
        lesions, number = ndimage.label(truth, np.ones((3, 3, 3)))
        predicted, others = ndimage.label(prediction, np.ones((3, 3, 3)))
        assert number == found["n_ref_instances"][i]
        both = truth & prediction
        meetings = set(zip(predicted[both].tolist(), lesions[both].tolist(), strict=True))
        if len({mine for mine, _ in meetings}) < len(meetings):
            continue
        ours = case_metrics(truth, prediction, spacing).values
        counts = [ours[f"lesions_{what}"] for what in ("found", "invented", "missed")]
        assert counts == [found[name][i] for name in ("tp", "fp", "fn")]
        compared += 1
        of_several += number > 1 and others > 1
    assert compared > 100 and of_several > 15
