"""Raw cases through run folders that were written by hand: nothing is trained here."""

import dataclasses

import numpy as np
import pytest

from kerasseg.datasets.discovery import discover
from kerasseg.errors import UserError
from kerasseg.inference.ensemble import Ensemble
from kerasseg.inference.uncertainty import uncertainty
from kerasseg.prediction.model import load_run
from kerasseg.records.store import open_store
from tests.conftest import phantom_experiment
from tests.run_folders import SLICES, SMALL, write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A 3-D run of four modalities, and a 2-D one of two in another order, with thicker slices."""
    root = tmp_path_factory.mktemp("runs")
    volumes = phantom_experiment(root, *SMALL)
    slices = phantom_experiment(
        root,
        *SLICES,
        "data.modalities=[t2,flair]",
        "data.spacing=[3,1,1]",
        "pipeline.slices.neighbours=1",
    )
    folders = write_run(root / "volumes", volumes), write_run(root / "slices", slices, 1)
    return root, volumes, slices, folders


@pytest.fixture(scope="module")
def raw(runs):
    return discover(runs[1].data)[0].load()


def test_a_raw_case_gives_what_its_record_gives(runs, raw):
    _, experiment, _, (folder, _) = runs
    run = load_run(folder)
    assert run.experiment == experiment and run.target == "regions" and run.name == str(folder)
    found, masks = run.probabilities(raw), run.masks(raw)
    assert found.shape == (*raw.image.shape[:3], 3) and found.dtype == np.float32
    stored = open_store(experiment).load(raw.case_id)
    box = tuple(
        slice(o, o + n) for o, n in zip(stored.offset, stored.case.image.shape[:3], strict=True)
    )
    expected = np.zeros_like(found)
    expected[box] = run.predictor.probabilities(stored.case.image)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(masks, found >= 0.5)
    assert 0 < masks.mean() < 0.5 and not raw.image[~masks.any(axis=-1)].all()


def test_other_modalities_and_another_grid(runs, raw):
    """The records of that run, at its own spacing, say the same at the centres of voxels."""
    _, _, experiment, (_, folder) = runs
    run = load_run(folder)
    found = run.probabilities(raw)
    assert found.shape == (*raw.image.shape[:3], 3)
    stored = open_store(
        experiment.model_copy(
            update={"records": experiment.records.model_copy(update={"root": folder / "store"})}
        )
    ).load(raw.case_id)
    small = run.predictor.probabilities(stored.case.image)
    checked = 0
    for place in np.ndindex(*small.shape[:3]):
        centre = stored.case.affine @ [
            *(p + o for p, o in zip(place, stored.offset, strict=True)),
            1,
        ]
        voxel = np.linalg.solve(raw.affine, centre)[:3]
        if np.abs(voxel - np.round(voxel)).max() < 1e-4:  # a centre of the raw grid, too
            near = tuple(np.round(voxel).astype(int))
            np.testing.assert_allclose(found[near], small[place], atol=2e-3)
            checked += 1
    assert checked > 20


def test_modalities_go_by_name_and_missing_ones_are_named(runs, raw):
    run = load_run(runs[3][1])
    order = [2, 0, 3, 1]
    turned = dataclasses.replace(
        raw,
        image=raw.image[..., order],
        modalities=tuple(raw.modalities[i] for i in order),
        signal=None,
    )
    np.testing.assert_array_equal(run.probabilities(turned), run.probabilities(raw))
    lacking = dataclasses.replace(raw, image=raw.image[..., 1:3], modalities=("t1", "t1ce"))
    with pytest.raises(UserError, match=f"{raw.case_id} has no t2, flair, which .*slices needs"):
        run.probabilities(lacking)


def test_slices_and_volumes_together(runs, raw):
    members = [load_run(folder) for folder in runs[3]]
    ensemble = Ensemble(members)
    each = [member.probabilities(raw) for member in members]
    np.testing.assert_allclose(ensemble.probabilities(raw), np.mean(each, axis=0), atol=1e-6)
    found = uncertainty(ensemble.members(raw), ensemble.target)
    np.testing.assert_allclose(found.variance, np.var(each, axis=0), atol=1e-6)
    assert ensemble.masks(raw).shape == each[0].shape


def test_overrides_and_members(runs, raw):
    options = ["evaluation.flips=[width]", "postprocessing.keep_largest=[WT]"]
    run = load_run(runs[3][0], options)
    members = list(run.members(raw))
    assert len(members) == 2
    np.testing.assert_allclose(np.mean(members, axis=0), run.probabilities(raw), atol=1e-5)
    plain = load_run(runs[3][0], options[:1]).masks(raw)
    cleaned = run.masks(raw)
    assert 0 < cleaned[..., 0].sum() < plain[..., 0].sum()
