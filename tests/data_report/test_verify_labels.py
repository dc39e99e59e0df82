"""`kerasseg verify` finds segmentations whose labels cannot mean what they say."""

import dataclasses

import numpy as np
import pytest

from kerasseg.data_report.verify import verify
from kerasseg.datasets.checks import findings_of
from kerasseg.errors import UserError
from kerasseg.prediction.prediction import array_case
from kerasseg.records.store import open_store
from kerasseg.train_summary import warnings_about_scores
from tests.conftest import write_brats
from tests.data_report.test_verify import experiment_of


def test_label_3_in_one_case_and_4_in_another_is_wrong_about_the_set(tmp_path, phantoms):
    """One of the ids is no enhancing tumour; both were taken for it, file by file."""
    root = tmp_path / "scans"
    write_brats(root, "a", phantoms[0], enhancing=3)
    write_brats(root, "b", phantoms[1], enhancing=4)
    result = verify(experiment_of(root))
    assert not result.ok and result.counts["ok"] == 2
    (finding,) = result.findings
    assert finding.check == "label ids" and "3 occurs in a and label 4 in b" in finding.message
    with pytest.raises(UserError, match=r"3 occurs in a and label 4 in b.*data.label_map"):
        open_store(experiment_of(root))
    named = experiment_of(root, "data.label_map={0: 0, 1: 1, 2: 2, 3: 3, 4: 3}")
    assert verify(named).ok


def test_masks_that_say_only_where_tumour_is(tmp_path, phantoms):
    """They were trained on as necrosis without a word."""
    root = tmp_path / "raw"
    for index in range(2):
        image, label = phantoms[index]
        write_brats(root, f"case{index}", (image, (label > 0).astype(np.uint8)))
    experiment = experiment_of(root)
    found = verify(experiment)
    assert [f.check for f in found.findings] == ["one class"] and found.ok
    assert "All tumour of all cases is NCR: " in found.findings[0].message
    assert found.findings[0].message in warnings_about_scores(experiment, open_store(experiment))
    told = ["data.classes=tumour", "model.target=binary", "data.label_map={0: 0, 1: 1}"]
    assert not verify(experiment_of(root, *told)).findings


@pytest.mark.parametrize(
    ("spoil", "check", "words"),
    [
        (lambda image, label: image.any(axis=-1), "whole brain", "covers 100% of the scan"),
        (lambda image, label: label[::-1], "outside the brain", "were flipped in depth"),
        (lambda image, label: label[::-1, ::-1], "outside the brain", "flipped in"),
        (
            lambda image, label: label.swapaxes(1, 2),
            "outside the brain",
            "height and width swapped",
        ),
    ],
    ids=["brain mask", "flipped", "flipped twice", "turned"],
)
def test_labels_that_cannot_be_of_this_scan(spoil, check, words):
    """A tumour at the edge of a head that lies in one corner of a cube."""
    image = np.zeros((20, 20, 20, 2), np.float32)
    image[2:12, 2:9, 2:12] = np.random.default_rng(0).uniform(4, 6, (10, 7, 10, 2))
    label = np.zeros(image.shape[:3], np.uint8)
    label[2:6, 2:4, 8:12] = 1
    case = array_case(image, (1, 1, 1), ("flair", "t1"))
    assert not [f for f in findings_of(dataclasses.replace(case, label=label)) if f.check == check]
    spoilt = np.ascontiguousarray(spoil(image, label)).astype(np.uint8)
    errors = [
        finding
        for finding in findings_of(dataclasses.replace(case, label=spoilt))
        if finding.severity == "error"
    ]
    assert [finding.check for finding in errors] == [check] and words in errors[0].message
    half = (image.any(axis=-1) & (np.arange(20) < 7)).astype(np.uint8)
    (warning,) = findings_of(dataclasses.replace(case, label=half))
    assert warning.severity == "warning" and "covers 50% of the scan" in warning.message
