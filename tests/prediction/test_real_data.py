"""Real scans without a segmentation, through a run that was written by hand."""

import nibabel as nib
import numpy as np
import pytest

from kerasseg.prediction.predict import Arguments, predict
from tests.conftest import phantom_experiment
from tests.run_folders import SMALL, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return write_run(
        folder / "a", phantom_experiment(folder, *SMALL, "pipeline.patch_size=[64,96,96]")
    )


@pytest.mark.parametrize(
    ("scans", "scan"),
    [
        ("brats23_unlabelled", "BraTS-GLI-00001-000/BraTS-GLI-00001-000-t1c.nii.gz"),
        ("brats20_h5", None),
        ("msd", "Task01_BrainTumour/imagesTr/*.nii.gz"),
    ],
)
def test_the_label_has_the_grid_of_the_scan(real_data, run, tmp_path, scans, scan):
    settings = ("data.h5_slices=155",)
    outcome = predict(Arguments((run,), (real_data / scans,), settings), tmp_path, overlays=0)
    (case_id,) = outcome.written
    assert not outcome.failed
    label = nib.load(tmp_path / f"{case_id}.nii.gz")
    assert label.shape == (240, 240, 155) and nib.aff2axcodes(label.affine) == ("L", "P", "S")
    if scan:
        (path,) = (real_data / scans).glob(scan)
        np.testing.assert_array_equal(label.affine, nib.load(path).affine)
    # A run on phantoms writes canonical ids.
    assert set(np.unique(np.asarray(label.dataobj))) <= {0, 1, 2, 3}
    assert label.get_data_dtype() == np.uint8 and np.asarray(label.dataobj).any()
