"""The real scans beside the checkout, through every route."""

from pathlib import Path

import numpy as np
import pytest

from kerasseg.config.data import DataSettings
from kerasseg.config.load import load_experiment
from kerasseg.data_report.explore import explore
from kerasseg.data_report.verify import verify
from kerasseg.datasets.checks import read_case
from kerasseg.datasets.discovery import discover
from kerasseg.records.schema import decode, encode
from kerasseg.records.store import open_store

TUMOUR_VOXELS = [25506, 85957, 26448]
"""NCR, ED and ET of BraTS2021_00006, as the data's README counts them."""


@pytest.mark.slow
def test_h5_and_nifti_routes_agree(real_data):
    (h5,) = discover(DataSettings(layout="brats_h5", root=real_data / "brats20_h5"))
    (nifti,) = discover(DataSettings(layout="brats_nifti", root=real_data / "brats21"))
    slices, volume = h5.load(), nifti.load()
    np.testing.assert_array_equal(slices.label, volume.label)
    np.testing.assert_array_equal(np.bincount(volume.label.ravel())[1:], TUMOUR_VOXELS)
    np.testing.assert_allclose(slices.affine, volume.affine)
    np.testing.assert_array_equal(slices.image == 0, volume.image == 0)
    # The slices' own scale is lost in their files, so more than this the layout does not allow.
    deviation = volume.image.std(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(slices.image * deviation, volume.image, rtol=1e-3, atol=0.05)


@pytest.mark.slow
def test_msd_and_nifti_routes_agree_to_the_stored_bit(real_data):
    (msd,) = discover(DataSettings(layout="msd", root=real_data / "msd"))
    (nifti,) = discover(DataSettings(layout="brats_nifti", root=real_data / "brats21"))
    stored = [decode(encode(source.load(), 4096).payload) for source in (msd, nifti)]
    np.testing.assert_array_equal(*[s.case.label for s in stored])
    np.testing.assert_array_equal(*[s.case.image for s in stored])
    np.testing.assert_allclose(*[s.case.affine for s in stored])
    assert stored[0].offset == stored[1].offset
    np.testing.assert_array_equal(np.bincount(stored[0].case.label.ravel())[1:], TUMOUR_VOXELS)


def test_unlabelled_case_is_read(real_data):
    settings = DataSettings(layout="brats_nifti", root=real_data / "brats23_unlabelled")
    (source,) = discover(settings)
    case = read_case(source, settings)
    assert case.label is None and case.image.shape == (155, 240, 240, 4)
    assert case.patient_id == "BraTS-GLI-00001"


def test_lgg_patients_with_their_attributes(real_data):
    sources = discover(DataSettings(layout="lgg", root=real_data / "lgg"))
    assert len(sources) == 18 and len({s.patient_id for s in sources}) == 18
    folder = real_data / "lgg" / "kaggle_3m"
    for source in sources[:3]:
        case = source.load()
        masks = len(list((folder / source.case_id).glob("*_mask.tif")))
        assert case.image.shape == (masks, 256, 256, 3) and set(np.unique(case.label)) == {0, 1}
        assert case.attributes["gender"] in "12"


READY = [
    ("brats20_3d", "brats21", ["data.layout=brats_nifti"], 1),
    ("brats20_3d", "brats20_h5", [], 1),
    ("brats20_flair_2d", "brats21", [], 1),
    ("msd_3d", "msd", [], 1),
    ("lgg_2d", "lgg", [], 18),
    ("pairs_2d", "image_pairs", [], 200),
    (
        "nifti_3d",
        "brats21",
        [
            "data.files={flair: '{case}/*_flair.nii.gz', t1ce: '{case}/*_t1ce.nii.gz'}",
            "data.segmentation='{case}/*_seg.nii.gz'",
        ],
        1,
    ),
]
"""Config, folder, further overrides, cases: what docs/data.md promises of each folder."""


@pytest.mark.slow
@pytest.mark.parametrize(("config", "folder", "more", "cases"), READY)
def test_every_folder_is_verified_explored_and_converted(
    real_data: Path, tmp_path: Path, config: str, folder: str, more: list[str], cases: int
):
    roots = [f"data.root={real_data / folder}", f"records.root={tmp_path / 'store'}"]
    experiment = load_experiment(f"configs/{config}.yaml", [*roots, *more])
    verification = verify(experiment)
    assert verification.ok and len(verification.cases) == cases
    page = explore(experiment, tmp_path / "explore")
    assert page.stat().st_size > 100_000
    store = open_store(experiment)
    assert len(store.rows) == cases and not store.damaged_records()
