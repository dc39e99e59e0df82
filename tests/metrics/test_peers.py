"""Against other packages. MONAI, which needs PyTorch, only where it is installed: extra `peers`."""

import cc3d
import numpy as np
import pytest
import surface_distance
from medpy.metric import binary
from scipy import ndimage
from surface_distance import lookup_tables

from kerasseg.metrics.case_metrics import MetricSettings, case_metrics
from kerasseg.metrics.lesions import Components
from kerasseg.metrics.surface import Surfels, surfel_areas
from tests.metrics.masks import SHAPE, pairs

TOLERANCE = 1.7
CLOSE = {"rel": 1e-4, "abs": 1e-4}
MASKS = [(t, p, s) for t, p, s in pairs(200, seed=3) if t.any() and p.any()]
WHOLE = tuple(slice(0, side) for side in SHAPE)


def ours(truth, prediction, spacing):
    return case_metrics(truth, prediction, spacing, MetricSettings(tolerance=TOLERANCE)).values


@pytest.mark.slow
def test_monai():
    monai = pytest.importorskip("monai.metrics", reason="the extra `peers` is not installed")
    torch = pytest.importorskip("torch")
    for truth, prediction, spacing in MASKS:
        y, p = (torch.from_numpy(mask[None, None]) for mask in (truth, prediction))
        both = {"y_pred": p, "y": y, "include_background": True}
        expected = {
            "dice": monai.compute_dice(**both),
            "iou": monai.compute_iou(**both),
            "hd95": monai.compute_hausdorff_distance(**both, percentile=95, spacing=spacing),
            "assd": monai.compute_average_surface_distance(**both, symmetric=True, spacing=spacing),
            "surface_dice": monai.compute_surface_dice(
                **both, class_thresholds=[TOLERANCE], spacing=spacing, use_subvoxels=False
            ),
        }
        got = ours(truth, prediction, spacing)
        for name, value in expected.items():
            assert got[name] == pytest.approx(float(value), **CLOSE), (name, spacing)


def test_monai_on_pictures():
    monai = pytest.importorskip("monai.metrics", reason="the extra `peers` is not installed")
    torch = pytest.importorskip("torch")
    for truth, prediction, spacing in MASKS:
        t, p = truth[2:3], prediction[2:3]
        if t.any() and p.any():
            both = (torch.from_numpy(mask[None]) for mask in (p, t))
            expected = monai.compute_hausdorff_distance(
                *both, include_background=True, percentile=95, spacing=spacing[1:]
            )
            assert ours(t, p, spacing)["hd95"] == pytest.approx(float(expected), **CLOSE)


def test_medpy():
    for truth, prediction, spacing in MASKS:
        got = ours(truth, prediction, spacing)
        assert got["dice"] == pytest.approx(binary.dc(prediction, truth), **CLOSE)
        assert got["iou"] == pytest.approx(binary.jc(prediction, truth), **CLOSE)
        assert got["precision"] == pytest.approx(binary.precision(prediction, truth), **CLOSE)
        assert got["recall"] == pytest.approx(binary.recall(prediction, truth), **CLOSE)
        if not truth.all():  # MedPy says 0 where there is nothing to exclude
            specificity = binary.specificity(prediction, truth)
            assert got["specificity"] == pytest.approx(specificity, **CLOSE)
        assert got["assd"] == pytest.approx(binary.assd(prediction, truth, spacing), **CLOSE)


def test_surface_distance():
    for truth, prediction, spacing in MASKS:
        distances = surface_distance.compute_surface_distances(truth, prediction, spacing)
        one, other = (Surfels.of_mask(mask, spacing, WHOLE) for mask in (truth, prediction))
        expected = surface_distance.compute_robust_hausdorff(distances, 95)
        assert one.hd95(other) == pytest.approx(expected, **CLOSE)


def test_surfel_areas_are_those_of_surface_distance():
    bits = lookup_tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL.ravel()
    places = [sum(int(bits[bit]) for bit in range(8) if code >> bit & 1) for code in range(256)]
    for spacing in ((1.0, 1.0, 1.0), (0.7, 5.0, 1.3)):
        expected = lookup_tables.create_table_neighbour_code_to_surface_area(spacing)[places]
        np.testing.assert_allclose(surfel_areas(spacing), expected, atol=1e-12)


def test_cc3d():
    for truth, prediction, _ in MASKS:
        mask = truth ^ ndimage.binary_erosion(prediction)
        labels, number = cc3d.connected_components(mask, connectivity=26, return_N=True)
        got = Components.of_mask(mask)
        assert got.number == number
        # One to one: as many pairs of labels as labels.
        assert len(set(zip(labels[mask], got.labels[mask], strict=True))) == number
