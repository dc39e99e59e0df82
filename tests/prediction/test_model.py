"""`kerasseg.load`."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tensorflow as tf

import kerasseg
from kerasseg import anatomy
from kerasseg.config.load import load_experiment
from kerasseg.datasets.checks import NO_NAMES, check_case, intensity_profile
from kerasseg.errors import UserError
from kerasseg.prediction.model import LoadedRun, Model
from kerasseg.prediction.prediction import array_case
from kerasseg.serving.graph_input import Accepted, voxel_warning
from tests.conftest import LPS, to_file_axes, write_brats, write_nifti


def test_import_is_light():
    probe = (
        "import sys, kerasseg; heavy = {'tensorflow', 'keras', 'numpy'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = kerasseg.nothing


def test_a_path_and_an_array_say_the_same(runs, phantoms, tmp_path):
    folder = write_brats(tmp_path, "a", phantoms[0])
    model = kerasseg.load(runs["volumes"])
    assert model.modalities == ("flair", "t1", "t1ce", "t2") and model.target == "regions"
    by_path = model.predict(str(folder))
    image = np.rint(phantoms[0][0]).astype(np.int16)
    by_array = model.predict(image, spacing=(1, 1, 1), uncertainty=True)
    assert by_path.label.shape == image.shape[:3] and by_path.label.dtype == np.uint8
    assert by_path.probabilities.shape == (*image.shape[:3], 3) and by_path.label.any()
    assert by_path.channels == ("WT", "TC", "ET") and by_path.entropy is None
    np.testing.assert_array_equal(by_array.label, by_path.label)
    np.testing.assert_allclose(by_array.probabilities, by_path.probabilities, atol=1e-6)
    assert by_array.entropy.shape == by_array.probabilities.shape and by_array.variance is None
    by_path.save(tmp_path / "out.nii.gz")
    saved = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(saved.affine, LPS)
    np.testing.assert_array_equal(np.asarray(saved.dataobj), to_file_axes(by_path.label))


def test_spacing_of_an_array(runs, phantoms):
    found = kerasseg.load(runs["volumes"]).predict(phantoms[0][0], spacing=(3, 1.5, 0.5))
    assert found.spacing == (3, 1.5, 0.5)
    np.testing.assert_allclose(np.linalg.norm(found.affine[:3, :3], axis=0), (3, 1.5, 0.5))


def test_variance_of_test_time_augmentation(runs, phantoms):
    model = kerasseg.load(runs["slices"], overrides=["evaluation.flips=[width]"])
    found = model.predict(phantoms[0][0][..., [3, 0]], uncertainty=True)
    assert found.variance.shape == found.probabilities.shape and found.variance.max() > 0


def test_arrays_that_cannot_be_predicted(runs, phantoms):
    model, image = kerasseg.load(runs["volumes"]), phantoms[0][0]
    with pytest.raises(UserError, match=r"has 2 channel.* width, 4\) with the channels flair, t1"):
        model.predict(image[..., :2])
    with pytest.raises(UserError, match=r"shape \(24, 22, 4\), expected \(depth, height"):
        model.predict(image[0])
    with pytest.raises(UserError, match=r"array is a single slice, but .*volumes takes volumes"):
        model.predict(image[9:10])
    with pytest.raises(UserError, match="spacing is"):
        model.predict(image, spacing=(1, 1, 0))
    with pytest.raises(UserError, match=r"<U1 of shape .* holds no scan"):
        model.predict(np.full(image.shape, "a"))
    bad = image.copy()
    bad[3, 4, 5, 2] = np.nan
    with pytest.raises(UserError, match=r"t1ce has 1 NaN .*\(3, 4, 5\)"):
        model.predict(bad)


def test_a_path_of_several_cases_and_runs_of_several_targets(runs, phantoms, tmp_path):
    for name in "ab":
        write_brats(tmp_path, name, phantoms[0])
    with pytest.raises(UserError, match="holds 2 cases, such as a and b: name one of them"):
        kerasseg.load(runs["volumes"]).predict(tmp_path)
    with pytest.raises(UserError, match=r"an ensemble needs runs of one model.target"):
        kerasseg.load(runs["volumes"], runs["labels"])
    with pytest.raises(UserError, match="at least one run"):
        kerasseg.load()


def test_a_single_slice_in_a_file(runs, phantoms, tmp_path):
    for channel, name in enumerate(("flair", "t1", "t1ce", "t2")):
        array = to_file_axes(phantoms[0][0][9:10, ..., channel])
        write_nifti(tmp_path / f"a_{name}.nii.gz", array)
    with pytest.raises(UserError, match=r"a is a single slice, but .*volumes takes volumes"):
        kerasseg.load(runs["volumes"]).predict(tmp_path)
    assert kerasseg.load(runs["slices"]).predict(tmp_path).label.shape == (1, 24, 22)


@pytest.mark.parametrize(
    ("settings", "spacing", "words"),
    [
        ("", (1, 1, 1), ""),
        ("", (1, 0.9, 1.2), ""),
        ("", (6, 0.9, 0.9), "voxels of 6x0.9x0.9 mm .* training's were 1x1x1 mm: the network sees"),
        ("", (1, 0.5, 0.5), "voxels of 1x0.5x0.5 mm"),
        ("data.spacing=[1,1,1]", (6, 1, 1), "voxels of 6x1x1 mm .* what lies between its slices"),
        ("data.spacing=[1,1,1]", (1, 0.5, 0.5), ""),
    ],
)
def test_thick_slices_are_said_in_python_and_by_a_server(phantoms, settings, spacing, words):
    image = np.rint(phantoms[0][0])
    image[..., 2] = 3 * image[..., 1]
    experiment = load_experiment(None, [settings] if settings else [])
    seen = ([1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    run = LoadedRun(Path("run"), experiment, None, seen)
    case = check_case(array_case(image, spacing, anatomy.MODALITIES))
    assert [note.split(":")[0] for note in case.notes] == ["t1ce is a copy of t1"]
    note = " ".join(run.notes_on(case))
    assert re.search(words, note) and bool(words) == bool(note)
    accepted = Accepted(anatomy.MODALITIES, 10**6, experiment.data.spacing, trained=seen)
    said = voxel_warning(tf.constant(spacing, tf.float32), accepted).numpy().decode()
    assert said == (f"The scan {note}." if note else "")


def test_intensities_that_speak_against_the_order_of_channels_are_said(phantoms):
    images = [image for image, _ in phantoms]
    inside = [image[image.any(axis=-1)] for image in images]
    profiles = intensity_profile(
        np.array([v.mean(axis=0) for v in inside]), np.array([v.std(axis=0) for v in inside])
    )
    usual = (profiles.mean(axis=0), profiles.std(axis=0))
    run = LoadedRun(Path("run"), load_experiment(None, []), None, intensities=usual)
    case = array_case(images[0], (1, 1, 1), anatomy.MODALITIES)
    case.notes.append(f"{NO_NAMES}: …")
    assert run.notes_on(case) == []
    order = [1, 2, 3, 0]
    (note,) = run.notes_on(dataclasses.replace(case, image=images[0][..., order] * 7))
    assert "speak against this order" in note and "data.channels={flair: 3, t1: 0, " in note
    assert run.notes_on(dataclasses.replace(case, image=images[0][..., order], notes=[])) == []


def test_notes_come_with_a_prediction_and_runs_of_before_have_none(runs, phantoms):
    model = kerasseg.load(runs["slices"])
    image = np.rint(phantoms[0][0][..., [3, 0]])
    assert model.predict(image, spacing=(6, 1, 1)).case.notes == []
    seen = dataclasses.replace(model.runs[0], voxel_sizes=([1, 1, 1], [2, 1, 1]))
    (note,) = Model([seen]).predict(image, spacing=(6, 1, 1)).case.notes
    assert note.startswith("has voxels of 6x1x1 mm (depth x height x width), the training's were ")
    assert "1x1x1 to 2x1x1 mm" in note
