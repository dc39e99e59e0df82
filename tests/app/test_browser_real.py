"""The page in a real browser with real scans: they are sent, predicted and taken home."""

import signal

import nibabel as nib
import numpy as np
import pytest

import kerasseg
from tests.app import test_browser
from tests.app.conftest import started

pytestmark = [pytest.mark.browser, pytest.mark.all_only]  # phantoms show the same in test_browser
page = test_browser.page


@pytest.fixture(scope="module")
def app_address(app_runs):
    """A page with the limits that users have."""
    program, address = started([app_runs["volumes"], app_runs["slices"]])
    yield address
    program.send_signal(signal.SIGTERM)
    assert program.wait() == 0


def test_a_brats_case_is_predicted_as_the_command_predicts_it(page, app_runs, real_data, tmp_path):
    folder = real_data / "brats21" / "BraTS2021_00006"
    page.select_option("#view", "axial")  # 3-D in software takes seconds for each picture
    page.set_input_files("#files", [str(p) for p in folder.iterdir() if "seg" not in p.name])
    page.wait_for_selector("#lacking >> text=Nothing is missing")
    page.click("#tray [type=submit]")
    page.wait_for_selector("#findings:not([hidden])")
    label = test_browser.saved(page, "label")
    kerasseg.predict([app_runs["volumes"]], [folder], tmp_path / "predicted")
    expected = nib.load(next((tmp_path / "predicted").rglob("*.nii.gz")))
    assert np.array_equal(np.asarray(label.dataobj), np.asarray(expected.dataobj))
    assert np.array_equal(label.affine, expected.affine)


def test_a_slice_of_lgg(page, real_data):
    patient = next((real_data / "lgg" / "kaggle_3m").iterdir())
    page.select_option("#runs", label="slices")
    page.set_input_files("#files", str(patient / f"{patient.name}_10.tif"))
    page.click("#tray [type=submit]")
    page.wait_for_selector("#findings:not([hidden])")
    assert np.asarray(test_browser.saved(page, "label").dataobj).shape[:2] == (256, 256)
