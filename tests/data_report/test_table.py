import io
import json
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from kerasseg.data_report.table import print_verification, write_json
from kerasseg.data_report.verify import CaseReport, Verification
from kerasseg.datasets.checks import Finding
from kerasseg.errors import UserError

ROOT = Path("/data/a/very/long/way/to/the/scans")


def case(name: str, *findings: Finding, **facts) -> CaseReport:
    facts = {"shape": (155, 240, 240), "spacing": (1.0, 1.0, 1.0)} | facts
    return CaseReport(
        name, name, 5, 12_345_678, modalities=("flair", "t1"), findings=list(findings), **facts
    )


def sample() -> Verification:
    voxels = {"NCR": 25506, "ED": 85957, "ET": 26448}
    return Verification(
        "brats_nifti",
        ROOT,
        [
            case("BraTS2021_00000", voxels=voxels),
            case("BraTS2021_00001", Finding("warning", "empty segmentation", "no [bold]tumour[/]")),
            case(
                "BraTS2021_00002_with_an_unusually_long_name",
                Finding("error", "unreadable", f"{ROOT}/x/BraTS2021_00002_t1.nii.gz: is cut short"),
                Finding("warning", "note", "odd"),
                shape=None,
                spacing=None,
            ),
        ],
        [Finding("warning", "patients", "neighbours may leak")],
    )


def printed(verification: Verification, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_verification(verification, console)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 140, 200])
def test_it_fits_and_loses_nothing(width):
    text = printed(sample(), width)
    assert max(len(line) for line in text.splitlines()) <= width
    for words in ("BraTS2021_00000", "155x240x240", "(the whole set)"):
        assert words in text
    letters = Counter("".join(text.split()))
    for case in sample().cases:
        assert not Counter(case.case_id) - letters
    assert ("85,957" in text) == ("12.3" in text) == (width >= 140)
    assert "very/long" not in text, "paths are shown from data.root"
    summary = "3 cases: 1 ok, 1 with warnings, 1 with errors; 1 finding about the whole set"
    assert " ".join(text.split()).endswith(summary)


def test_every_word_of_a_finding_is_there_and_its_severity_where_the_row_has_another():
    text = printed(sample(), 200)
    assert "empty segmentation: no [bold]tumour[/]" in text
    assert "unreadable: x/BraTS2021_00002_t1.nii.gz: is cut short" in text
    assert "warning, note: odd" in text
    assert "patients: neighbours may leak" in text


def test_good_cases_have_no_row_once_there_are_many():
    cases = [case(f"case{i:02d}", voxels={"ET": 5}) for i in range(30)]
    cases[7].findings.append(Finding("error", "finite", "t1 has NaN"))
    text = printed(Verification("msd", ROOT, cases), 80)
    assert "case07" in text and "case08" not in text
    assert "and 29 cases without a finding" in text
    assert text.strip().endswith("30 cases: 29 ok, 0 with warnings, 1 with errors")
    text = printed(Verification("msd", ROOT, cases[:20]), 80)
    assert "case08" in text and "without a finding" not in text


def test_an_unlabelled_set_is_said_to_be_for_prediction():
    assert "none has a segmentation" in " ".join(
        printed(Verification("msd", ROOT, [case("a")]), 120).split()
    )
    assert "none has" not in printed(Verification("msd", ROOT, [case("a", voxels={"ET": 0})]), 120)


@pytest.mark.parametrize(("severity", "code"), [("error", "\x1b[1;31m"), ("warning", "\x1b[33m")])
def test_severity_has_a_colour(severity, code):
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system="standard")
    print_verification(
        Verification("msd", ROOT, [case("a", Finding(severity, "note", "x"))]), console
    )
    assert f"{code}{severity}" in console.file.getvalue()


def test_an_error_of_the_whole_set_is_not_ok():
    good = [case("a", voxels={"ET": 1})]
    assert Verification("msd", ROOT, good).ok
    assert Verification("msd", ROOT, good, [Finding("warning", "spacing", "")]).ok
    assert not Verification("msd", ROOT, good, [Finding("error", "split", "")]).ok


def test_the_json_holds_everything(tmp_path):
    path = tmp_path / "verify.json"
    write_json(sample(), path)
    values = json.loads(path.read_text())
    assert values["ok"] is False and values["root"] == str(ROOT)
    assert values["counts"] == {"ok": 1, "warning": 1, "error": 1}
    assert values["findings"] == [
        {"severity": "warning", "check": "patients", "message": "neighbours may leak"}
    ]
    first, _, last = values["cases"]
    assert first["verdict"] == "ok" and first["voxels"]["ED"] == 85957
    assert first["shape"] == [155, 240, 240] and first["bytes"] == 12_345_678
    assert last["shape"] is None and len(last["findings"]) == 2
    assert last["findings"][0]["check"] == "unreadable"


def test_a_place_that_cannot_be_written_names_the_option(tmp_path):
    with pytest.raises(UserError, match=r"--output"):
        write_json(sample(), tmp_path / "none" / "verify.json")


def test_a_finding_does_not_command_the_terminal():
    found = Verification(
        "nifti", ROOT, [case("a", Finding("error", "x", "\x1b[2J\x07gone\nnext line"))]
    )
    text = io.StringIO()
    print_verification(found, Console(file=text, width=100))
    assert "%1B[2J%07gone" in text.getvalue() and "next line" in text.getvalue()
    assert "\x1b" not in text.getvalue()
