"""Boxes and points of masks, and what evaluation, prediction and comparison make of prompts."""

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from scipy import ndimage

from kerasseg.app.runs import Runs
from kerasseg.config.model import ModelSettings
from kerasseg.datasets.discovery import discover
from kerasseg.errors import UserError
from kerasseg.evaluation.compare_runs import compare_runs
from kerasseg.evaluation.evaluate import segment_cases
from kerasseg.evaluation.evaluate_runs import evaluate_ensemble, evaluate_runs
from kerasseg.inference.predictor import build_predictor
from kerasseg.metrics.overlap import dice
from kerasseg.models.build import build_network
from kerasseg.models.sam.network import with_prompt
from kerasseg.models.sam.prompts import BoxOfMask, PointsOfMask
from kerasseg.prediction.model import load, load_run
from kerasseg.records.store import open_store
from kerasseg.run import read_evaluated
from kerasseg.run_experiment import run_experiment
from kerasseg.serving.export import export_runs
from tests.models.sam.test_sam_run import sam_experiment
from tests.run_folders import make_run

pytestmark = pytest.mark.usefixtures("networks_loaded_once")


def mask_of(shape, *boxes):
    """A mask (B, h, w, 1) with a box of ones (first and last row, first and last column) each."""
    mask = np.zeros((len(boxes), *shape, 1), np.float32)
    for one, (top, bottom, left, right) in zip(mask, boxes, strict=True):
        one[top : bottom + 1, left : right + 1] = 1
    return mask


def test_a_box_lies_around_its_mask_in_pixels_of_the_square():
    mask = mask_of((20, 40), (4, 9, 10, 30), (0, 19, 0, 39))
    np.testing.assert_array_equal(BoxOfMask(40, 0)(mask)[:, 0], [[10, 4, 30, 9], [0, 0, 39, 19]])
    # At twice the size the centres of pixels 10 and 30 lie at 21 and 61, counted from 0.5.
    doubled = BoxOfMask(80, 3)(mask)[:, 0]
    np.testing.assert_array_equal(doubled, [[14.5, 2.5, 66.5, 24.5], [0.5, 0.5, 78.5, 38.5]])


def test_in_training_each_side_moves_outwards_by_up_to_twice_the_margin():
    layer, mask = BoxOfMask(40, 3), mask_of((40, 40), *[(15, 20, 12, 24)] * 200)
    moved = np.asarray(layer(mask, training=True))[:, 0] - [12, 15, 24, 20]
    outwards = moved * [-1, -1, 1, 1]
    assert outwards.min() >= 0 and 5.5 < outwards.max() <= 6 and abs(outwards.mean() - 3) < 0.3


def test_points_lie_on_the_mask_and_missing_ones_are_none():
    mask = mask_of((20, 40), (4, 9, 10, 30), (5, 5, 7, 8), (3, 2, 1, 0))
    layer = PointsOfMask(40, 3)
    places, labels = (np.asarray(part) for part in layer(mask))
    np.testing.assert_array_equal(labels, [[1, 1, 1], [1, 1, -1], [-1, -1, -1]])
    for one, places_of_one, labels_of_one in zip(mask, places, labels, strict=True):
        for x, y in places_of_one[labels_of_one == 1].astype(int):
            assert one[y, x] == 1
    assert len({tuple(place) for place in places[0]}) == 3
    np.testing.assert_array_equal(layer(mask[1:])[0], places[1:])  # whatever else is in the batch
    np.testing.assert_array_equal(layer(mask)[0], places)
    assert np.any(np.asarray(layer(mask, training=True)[0])[0] != places[0])


@pytest.mark.parametrize("prompt", ["box", "points"])
def test_a_prompt_changes_the_mask_and_an_empty_one_gives_none(prompt, tmp_path):
    sam = {"encoder": "vit_xs", "weights": "none"}
    settings = ModelSettings(dimensions=2, network="sam", target="binary", sam=sam)
    network = build_network(settings, 1)
    asked = ModelSettings.model_validate(
        {**settings.model_dump(), "sam": {**sam, "prompt": prompt}}
    )
    prompted = with_prompt(network, asked)
    assert with_prompt(network, settings) is network
    image = np.random.default_rng(0).random((3, 64, 64, 1)).astype(np.float32)
    mask = mask_of((64, 64), (0, 63, 0, 63), (1, 0, 1, 0), (20, 30, 10, 50))
    found, whole = np.asarray(prompted([image, mask])), np.asarray(network(image))
    assert found[1].max() < 1e-8
    assert np.array_equal(found[0], whole[0]) == (prompt == "box")  # all of it is the whole slice
    assert np.abs(found[2] - whole[2]).max() > 1e-4
    prompted.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    np.testing.assert_array_equal(loaded([image, mask]), found)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.sam={prompt: points, box_margin: 5}", "box_margin is for model.sam.prompt=box"),
        ("model.sam={prompt: box, points: 5}", "points is for model.sam.prompt=points"),
        ("model.sam={boxes_from: runs/unet}", "boxes_from is for model.sam.prompt=box"),
    ],
)
def test_settings_of_another_prompt_are_refused(tmp_path, override, message):
    with pytest.raises(UserError, match=message):
        sam_experiment(tmp_path, override)
    with pytest.raises(UserError, match=r"model.sam.prompt=box is of single slices"):
        sam_experiment(tmp_path, "model.sam.prompt=box", "pipeline.slices.neighbours=1")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two run folders that nobody has trained: one to be prompted, and one to give it boxes."""
    folder = tmp_path_factory.mktemp("prompted")
    names = ("asked", "first")
    return [make_run(sam_experiment(folder, f"run.name={n}"), i) for i, n in enumerate(names)]


@pytest.mark.usefixtures("figures_not_rendered")
def test_a_box_from_the_truth_is_named_beside_every_score(runs):
    (page,) = evaluate_runs([read_evaluated(runs[0], ["model.sam.prompt=box"])], "validation")
    assert page.parent.name == "evaluation_validation_sam.prompt_box"
    summary = json.loads(page.with_name("summary.json").read_text())
    assert summary["prompt"] == {"validation": "box from the truth"}
    assert summary["facts"]["Prompt"] == "box from the truth"
    for name in ("metrics.csv", "summary.csv"):
        rows = list(csv.DictReader(page.with_name(name).open()))
        assert rows and {row["prompt"] for row in rows} == {"box from the truth"}
    assert "outlined that somebody has pointed at" in page.read_text()


def test_scores_of_prompts_from_the_truth_do_not_mix_with_others(runs, tmp_path):
    asked = read_evaluated(runs[0], ["model.sam.prompt=points"])
    with pytest.raises(UserError, match=r"asked gets the 1 point\(s\) from the truth, and .*first"):
        compare_runs([asked, read_evaluated(runs[1])], "validation", tmp_path)
    with pytest.raises(UserError, match="asked takes a prompt, which an ensemble has not"):
        evaluate_ensemble([asked, read_evaluated(runs[1])], "validation", "mean", tmp_path)
    with pytest.raises(UserError, match="asked gets the box from the truth, which a scan to be"):
        load_run(runs[0], ["model.sam.prompt=box"])


def test_boxes_of_another_run_are_the_same_of_records_and_of_raw_scans(runs, tmp_path):
    overrides = ["model.sam.prompt=box", f"model.sam.boxes_from={runs[1]}"]
    run = read_evaluated(runs[0], overrides)
    predictor = build_predictor(run.experiment, run.load_network())
    case_id = run.case_ids("validation")[0]
    (case,) = segment_cases(predictor, run.open_store(), {"validation": [case_id]})
    first = load_run(runs[1])
    (source,) = (s for s in discover(run.experiment.data) if s.case_id == case_id)
    scan = source.load()
    found = load_run(runs[0], overrides).probabilities(scan)
    np.testing.assert_allclose(case.whole_scan().masks, found > 0.5)
    boxes = first.masks(scan)[..., 0]
    filled = boxes.any(axis=(1, 2))
    assert filled.any() and not (found[~filled] > 1e-6).any()
    index = int(np.argmax(boxes.sum(axis=(1, 2))))
    stored = first.prepare(scan)  # with both networks on one grid, the images are the same
    given = predictor.with_prompt(stored.image, boxes)[index, ..., -1]
    parts, count = ndimage.label(boxes[index], np.ones((3, 3)))
    assert given.sum() == max(np.bincount(parts.ravel())[1:]) and count >= 1
    with pytest.raises(UserError, match="exported model holds one network alone"):
        export_runs([runs[0]], tmp_path / "brain", overrides)
    circle = read_evaluated(runs[0], [*overrides[:1], f"model.sam.boxes_from={runs[0]}"])
    assert build_predictor(circle.experiment, run.load_network()).box_run[0].folder == runs[0]


def test_boxes_of_a_run_with_other_voxels_and_sequences_come_to_the_own_grid(runs, tmp_path):
    other = ("run.name=coarse", "data.modalities=[t1,flair,t1ce]", "data.spacing=[1,2,2]")
    experiment = sam_experiment(tmp_path, *other, "pipeline.patch_size=[12,11]")
    coarse = make_run(experiment, 1)
    overrides = ["model.sam.prompt=box", f"model.sam.boxes_from={coarse}"]
    model = load(runs[0], overrides=overrides)
    assert model.modalities == ("flair", "t1", "t1ce")
    page = Runs([make_run(sam_experiment(runs[0].parents[1], "run.name=cascade", *overrides))])
    assert page.offered[0].describe(0)["modalities"] == ["flair", "t1", "t1ce"]
    page.load_all()  # as when the page starts
    assert page.state == "ready"
    (source, *_) = discover(model.data)
    found = model.runs[0].masks(source.load())[..., 0]
    predictor = model.runs[0].predictor
    stored = open_store(sam_experiment(runs[0].parents[1])).load(source.case_id)
    (case,) = segment_cases(predictor, _store_of(stored), {"validation": [source.case_id]})
    assert found.any() and dice(case.whole_scan().masks[..., 0], found) > 0.95
    affine = stored.case.affine + np.pad([[3.0]], ((0, 3), (3, 0)))
    stored = replace(stored, case=replace(stored.case, affine=affine))
    with pytest.raises(UserError, match=r"does not cover the same space in .*coarse"):
        list(segment_cases(predictor, _store_of(stored), {"validation": [source.case_id]}))


def _store_of(stored):
    return SimpleNamespace(load=lambda case_id: stored)


def test_a_run_that_is_trained_with_boxes(runs):
    given = (f"model.sam.weights={runs[0]}", "model.sam.prompt=box", "run.name=box")
    trained = run_experiment(sam_experiment(runs[0].parents[1], *given), evaluated=False)
    before, after = (
        keras.saving.load_model(folder / "checkpoints" / "best.keras")
        for folder in (runs[0], trained)
    )
    assert len(before.inputs) == 1 and len(after.inputs) == 2
    for name, same in {
        "image_encoder": True,
        "prompt_encoder": True,
        "mask_decoder": False,
    }.items():
        pairs = zip(*(n.get_layer(name).get_weights() for n in (before, after)), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs) is same
