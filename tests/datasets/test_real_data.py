"""The real case beside the checkout, through both routes."""

import numpy as np
import pytest

from kerasseg.datasets.discovery import discover
from kerasseg.settings.data import DataSettings


@pytest.mark.slow
def test_h5_and_nifti_routes_agree(real_data):
    (h5,) = discover(DataSettings(layout="brats_h5", root=real_data / "brats20_h5"))
    (nifti,) = discover(DataSettings(layout="brats_nifti", root=real_data / "brats21"))
    slices, volume = h5.load(), nifti.load()
    np.testing.assert_array_equal(slices.label, volume.label)
    np.testing.assert_array_equal(np.bincount(volume.label.ravel())[1:], [25506, 85957, 26448])
    np.testing.assert_allclose(slices.affine, volume.affine)
    np.testing.assert_array_equal(slices.image == 0, volume.image == 0)
    deviation = volume.image.std(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(slices.image * deviation, volume.image, rtol=1e-3, atol=0.05)


def test_unlabelled_case_is_read(real_data):
    root = real_data / "brats23_unlabelled"
    (source,) = discover(DataSettings(layout="brats_nifti", root=root))
    case = source.load()
    assert case.label is None and case.image.shape == (155, 240, 240, 4)
    assert case.patient_id == "BraTS-GLI-00001"
