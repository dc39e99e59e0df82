import base64
import re

import pytest

from kerasseg import anatomy
from kerasseg.evaluation.report import write_report
from kerasseg.evaluation.scores import CaseScore, mean_scores, score_columns


def page(folder, target="binary", figures=(), **changes):
    """The page of two cases without its tags' white space."""
    (folder / "figures").mkdir(exist_ok=True)
    for name in ("training_curves.png", *figures):
        (folder / "figures" / name).write_bytes(name.encode())
    dice = {name: 0.25 * (i + 1) for i, name in enumerate(score_columns(target)[:4])}
    dice = {name: dice.get(name, 0.5) for name in score_columns(target)}
    scores = [
        CaseScore("val 1", "validation", dice, tuple(figures)),
        CaseScore("test_1", "test", dice),
    ]
    summary = {
        "run": "run",
        "task": "3-D patches",
        "overfit_check": False,
        "warnings": [],
        "skipped_cases": {},
        "damaged_records": {},
        "case_kind": "volume",
        "dice": {s: mean_scores(r for r in scores if r.split == s) for s in ("validation", "test")},
        "metrics": {},
        "best_epoch": 1,
        "epochs": 2,
        "epochs_planned": 2,
        "stopped_early": False,
        "parameters": 1000,
        "precision": "float32",
        "device": "CPU",
        "cases": {"train": 3, "validation": 1, "test": 1},
        "store": "store",
        "data_fingerprint": "abc",
        **changes,
    }
    return " ".join(write_report(folder, summary, scores, target).read_text().split())


@pytest.mark.parametrize("target", anatomy.TARGETS)
def test_the_table_has_the_columns_of_the_target(tmp_path, target):
    text = page(tmp_path, target)
    assert re.findall(r"<th>(\w+)</th>", text) == ["case", "split", *score_columns(target)]
    assert ("WT and TC are the unions" in text) == (target in ("labels", "subregions"))
    assert ("Mean of WT (whole tumour), TC (tumour core) and" in text) == (target == "regions")
    assert "<p>A class empty" in text or target != "binary"
    assert text.count("<td>0.250</td>") == 4, "two cases and their means"
    assert "left out" not in text and 'class="warning"' not in text
    assert text.startswith("<!doctype html>")


def test_the_page_holds_the_figures_that_there_are(tmp_path):
    text = page(tmp_path, figures=("val 1_overlay.png",))
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    names = [base64.b64decode(image).decode() for image in images]
    assert names == ["training_curves.png", "val 1_overlay.png"]
    assert text.count("src=") == 2 and "http" not in text
    assert "<h2>val 1 (validation)</h2>" in text and "<h2>test_1" not in text


def test_metrics_have_intervals_and_say_what_the_empty_rule_decided(tmp_path):
    mean = {"mean": 12.345, "low": 10.0, "high": None, "cases": 1}
    text = page(
        tmp_path,
        metrics={
            "test": {"ET": {"hd95": mean | {"high": 15.5}}, "ED": {"hd95": mean | {"low": None}}}
        },
        confidence=0.9,
        decided_by_empty_rule={"test": {"hd95_ET": 2}},
        slicewise={"test": {"ET": {"slicewise_dice": 0.25, "slices": 7}}},
    )
    assert "Metrics of 1 test case<" in text and "bootstrapped 90 % intervals" in text
    assert "<td>12.35<small>10.00 to 15.50</small></td>" in text and "<td>12.35</td>" in text
    assert "<code>hd95_ET</code> 2." in text and "ET 0.250 of 7 slices." in text
    assert "HD95 [mm]" in text and "<td>Lesion-wise Dice</td>" in text and "373.13 mm" in text


def test_skipped_cases_damaged_records_and_warnings_stand_in_boxes(tmp_path):
    text = page(
        tmp_path,
        skipped_cases={"a": "a.nii: is <empty>.", "b": "b.nii: is cut."},
        damaged_records={"c": "shard-0: the record of case c is damaged."},
        warnings=["The pictures have no patient ids."],
        case_kind="picture",
    )
    boxes = re.findall(r'<(?:div|p) class="warning">(.*?)</(?:div|p)>', text)
    assert boxes[0] == "The pictures have no patient ids."
    assert boxes[1].startswith("<strong>2 cases of the data set were left out</strong>")
    assert "<li><code>a</code>: a.nii: is &lt;empty&gt;.</li>" in boxes[1]
    assert boxes[2].startswith("<strong>1 case of the split was left out</strong>")
    assert "the record of case c is damaged" in boxes[2]
    assert "Dice of whole pictures" in text
