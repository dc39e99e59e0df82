"""The one page of an evaluation, as training and `kerasseg evaluate` write it."""

import base64
import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from kerasseg import anatomy
from kerasseg.config.evaluation import MetricsSection
from kerasseg.evaluation.report import evaluation_summary, write_report, write_tables
from kerasseg.evaluation.results import CasePair, Provenance, Results, count_probabilities
from kerasseg.evaluation.scores import score_columns
from kerasseg.metrics.case_metrics import UNITS
from kerasseg.page import Drawing
from kerasseg.targets import label_to_masks

PROVENANCE = Provenance("a run", "3-D patches", {"Again": "kerasseg evaluate runs/a"})


def results_of(target="binary", sides=("validation", "test"), settings=None):
    """Two cases on each side, the second without enhancing tumour, of two patients."""
    results = {}
    for number, side in enumerate(sides):
        results[side] = Results(target, settings or MetricsSection(resamples=100))
        for index in range(2):
            random = np.random.default_rng(10 * number + index)
            label = random.integers(0, 4 - index, (4, 6, 5)).astype(np.uint8)
            found = np.roll(label, 1, axis=1)
            masks = label_to_masks(found, target)
            counts = count_probabilities(
                masks.reshape(-1, masks.shape[-1]) * 0.9, label.ravel(), target
            )
            case_id = f"{side} {index}"
            pair = CasePair(case_id, side, label, masks, (2, 1, 1), case_id, counts, 1.5)
            results[side].add(pair)
    return results


def page(folder, results, provenance=PROVENANCE, drawings=()):
    """The page without its tags' white space."""
    summary = evaluation_summary(results)
    path = write_report(folder, results, summary, provenance, drawings, "--output")
    assert path == folder / "report.html"
    assert json.loads((folder / "summary.json").read_text()) == summary
    return " ".join(path.read_text().split())


@pytest.mark.parametrize("target", anatomy.TARGETS)
def test_every_side_class_metric_and_case(tmp_path, target):
    results = results_of(target)
    text = page(tmp_path, results)
    assert text.startswith("<!doctype html>") and "<h1>a run</h1>" in text
    assert "<h2>Validation: 2 cases</h2>" in text and "<h2>Test: 2 cases</h2>" in text
    shown = re.findall(r'<th data-metric="dice">([\w ]+)</th>', text)
    assert shown == list(score_columns(target)), "the mean is among them"
    for side, found in results.items():
        for score in found.scores:
            assert f"<tr><td>{score.case_id}</td><td>{side}</td>" in text
    for metric in UNITS:
        assert f'data-metric="{metric}"' in text
    assert ("WT and TC are the unions" in text) == (target in ("labels", "subregions"))
    assert ("Mean of WT (whole tumour), TC (tumour core) and" in text) == (target == "regions")
    assert "A class empty in truth and prediction counts" in text and "373.13 mm" in text
    assert "Lesion-wise HD95 [mm]" in text and "95 % interval" in text
    assert "1.500 s" in text and 'class="warning"' not in text
    with (tmp_path / "metrics.csv").open() as file:
        assert [row["split"] for row in csv.DictReader(file)] == ["validation"] * 2 + ["test"] * 2


def test_means_have_intervals_and_the_empty_rule_is_told(tmp_path):
    results = results_of("labels", ["test"], MetricsSection(resamples=100, confidence=0.9))
    text = page(tmp_path, results)
    mean = results["test"].means()["ED"]["dice"]
    assert f"{mean.mean:.3f}<small>{mean.low:.3f} to {mean.high:.3f}</small>" in text
    assert "90 % interval" in text and "100 resamples" in text
    assert "<code>dice_ET</code>&nbsp;1" in text and re.search(r"\d\.\d{3}\*</td>", text)
    slices = results["test"].scores[0].slices["ED"] + results["test"].scores[1].slices["ED"]
    assert f"<td>{slices.mean:.3f}</td><td>{slices.slices}</td>" in text
    one = Results("labels", MetricsSection(resamples=100))
    one.add(
        CasePair("a", "test", np.ones((2, 3, 4), np.uint8), np.ones((2, 3, 4, 4), bool), (1, 1, 1))
    )
    alone = page(tmp_path / "one", {"test": one})
    assert "Test: 1 case<" in alone and "no interval: one patient" in alone
    assert " s</b>" not in alone, "no time is known"


def test_the_page_holds_the_figures_that_there_are(tmp_path):
    drawings = [Drawing(name, "Cases", Figure((2, 1)), f"of {name}") for name in ("a 1", "b")]
    text = page(tmp_path, results_of(), drawings=drawings)
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert [base64.b64decode(image) for image in images] == [
        (tmp_path / "figures" / f"{name}.png").read_bytes() for name in ("a 1", "b")
    ]
    assert "<h2>Cases</h2>" in text and "of a 1" in text
    assert not re.findall(r'(?:src|href)="(?!data:image/png|#)', text), "one file can be sent"


def test_left_out_cases_and_warnings_stand_in_boxes(tmp_path):
    provenance = replace(
        PROVENANCE,
        warnings=["The pictures have no patient ids."],
        left_out={
            "of the data set": {"a": "a.nii: is <empty>.", "b": "b.nii: is cut."},
            "of the split": {"c": "shard-0: the record of case c is damaged."},
            "of nothing": {},
        },
        case_kind="picture",
    )
    text = page(tmp_path, results_of(), provenance)
    boxes = re.findall(r'<(?:div|p) class="warning">(.*?)</(?:div|p)>', text)
    assert boxes[0] == "The pictures have no patient ids." and len(boxes) == 3
    assert boxes[1].startswith("<strong>2 cases were left out of the data set:</strong>")
    assert "<li><code>a</code>: a.nii: is &lt;empty&gt;.</li>" in boxes[1]
    assert boxes[2].startswith("<strong>1 case was left out of the split:</strong>")
    assert "the record of case c is damaged" in boxes[2]
    assert "whole pictures" in text and "per picture" in text


def test_facts_commands_versions_and_config(tmp_path):
    provenance = replace(
        PROVENANCE,
        commands={"Train again": "python train.py", "All figures": "kerasseg evaluate RUN"},
        facts={"Store": "tfrecords/x"},
        environment={"packages": {"keras": "3.1", "numpy": "2.0"}, "cores": 2},
        config="run: {name: <x>}",
    )
    text = page(tmp_path, results_of(), provenance)
    assert "<h3>All figures</h3> <pre>kerasseg evaluate RUN</pre>" in text
    assert "<dt>Store</dt><dd>tfrecords/x</dd>" in text
    assert "keras 3.1, numpy 2.0" in text and "run: {name: &lt;x&gt;}" in text


def test_tables_of_one_side(tmp_path):
    found = results_of("labels")["test"]
    write_tables(tmp_path, found, "--output")
    with (tmp_path / "summary.csv").open() as file:
        rows = {(row["class"], row["metric"]): row for row in csv.DictReader(file)}
    values = [score.classes["ED"].values["hd95"] for score in found.scores]
    row = rows["ED", "hd95"]
    assert float(row["mean"]) == pytest.approx(np.mean(values), abs=1e-6) and row["unit"] == "mm"
    assert float(row["median"]) == pytest.approx(np.median(values), abs=1e-6)
    assert rows["ET", "dice"]["decided_by_empty_rule"] == "1"
    with (tmp_path / "slicewise_dice.csv").open() as file:
        assert {row["case_id"] for row in csv.DictReader(file)} == {"test 0", "test 1"}
    matrix = np.loadtxt(
        tmp_path / "confusion_matrix.csv", delimiter=",", skiprows=1, usecols=range(1, 5)
    )
    np.testing.assert_array_equal(matrix, found.confusion)
