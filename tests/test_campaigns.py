"""benchmarks/: the folds, the runs and the scores of the campaigns on real data."""

import json
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from benchmarks import campaign_scores, lgg, pairs
from benchmarks.campaign import (
    Campaign,
    Job,
    Recipe,
    folder_of_links,
    keep_scores,
    restore_scores,
    run_campaign,
    run_job,
    table,
    train_settings,
)
from benchmarks.campaign_figures import draw_campaign
from benchmarks.campaign_scores import CaseDice, dice_as_buda, write_scores
from benchmarks.lgg_folds import CHOOSING, FOLDS, draw_folds, main, read_folds, sides_of
from kerasseg.config.load import load_experiment
from kerasseg.errors import UserError
from kerasseg.files import file_lock
from kerasseg.records.split_files import check_parts, read_split_csv


def test_folds_of_lgg_are_those_that_their_seed_draws_and_fit_a_config(tmp_path):
    rows = read_folds()
    assert draw_folds({c: (row.voxels, row.copied) for c, row in rows.items()}) == rows
    assert len(rows) == 53
    assert sorted(Counter(row.fold for row in rows.values()).values()) == [10, 10, 11, 11, 11]
    assert len({row.fold for row in rows.values() if row.copied}) == 4
    patients = {case_id: case_id[:12] for case_id in rows}
    for fold in range(FOLDS):
        main(str(fold), tmp_path / "split.csv")
        parts = read_split_csv(tmp_path / "split.csv", patients)
        check_parts(tmp_path / "split.csv", parts, patients, "")
        assert parts["test"] == [c for c, row in rows.items() if row.fold == fold]
        assert len(parts["validation"]) == CHOOSING


def test_who_chooses_for_a_fold_trains_for_the_others():
    rows = read_folds()
    by_fold = [sides_of(rows, fold) for fold in range(FOLDS)]
    for case_id in rows:
        sides = Counter(sides[case_id] for sides in by_fold)
        assert sides["test"] == 1
        assert sides["validation"] <= 1


def test_an_ensemble_is_tested_on_patients_that_none_of_its_networks_has_seen():
    rows = read_folds()
    splits = [lgg.sides(f"sixth{network}") for network in range(FOLDS)]
    for split in splits:
        sides = Counter(split.values())
        assert set(split) == set(rows) and sides["test"] == 9 and sides["validation"] in (8, 9)
    for case_id in rows:
        sides = Counter(split[case_id] for split in splits)
        assert sides in ({"test": FOLDS}, {"train": FOLDS - 1, "validation": 1})
    assert sum(row.copied for c, row in rows.items() if splits[0][c] == "test") == 1


STAND_IN = """
import json, sys
from pathlib import Path
verb, *words = sys.argv[1:]
with open("CALLS", "a") as calls:
    print(verb, *(word for word in words if word == "--resume"), file=calls)
if verb == "score":
    Path(words[2]).write_text("case_id,side,dice,as_buda\\na,validation,0.5,0.6\\nb,test,0.7,0.8\\n")
if verb != "train":
    sys.exit()
given = dict(word.split("=", 1) for word in words if "=" in word)
assert Path(given["split.file"]).read_text() == "case_id,split\\na,validation\\nb,test\\n"
run = Path(given["run.root"], given["run.name"])
if "--resume" in words:
    assert (run / "config.yaml").exists()
    (run / "summary.json").write_text("{}")
else:
    run.mkdir()  # fails where a run is begun twice
    (run / "config.yaml").touch()
    sys.exit("stopped")
"""


def test_a_stopped_campaign_goes_on_and_what_is_finished_is_not_run_again(tmp_path):
    script, calls = tmp_path / "stand_in.py", tmp_path / "calls.txt"
    script.write_text(STAND_IN.replace("CALLS", str(calls)))
    recipes = Recipe("plain", "a plain one"), Recipe("flips", "mirrored", ("a=1",), run_of="plain")
    program = sys.executable, str(script)
    sides = {"a": "validation", "b": "test"}
    campaign = Campaign(
        "lgg_2d",
        tmp_path,
        tmp_path / "out",
        recipes,
        lambda part: sides,
        program,
        (*program, "score"),
    )
    jobs = [Job(recipe, "fold0", 0) for recipe in recipes]
    tables = []

    def write_table():
        tables.append(table(campaign, "Title"))

    with pytest.raises(subprocess.CalledProcessError):
        run_campaign(campaign, jobs, write_table)
    minutes = tmp_path / "out" / "minutes" / "plain_fold0_seed0.json"
    before = json.loads(minutes.read_text())
    (tmp_path / "out" / "store_128").mkdir()
    run_campaign(campaign, jobs, write_table)
    assert json.loads(minutes.read_text()) > before > 0
    assert calls.read_text().split("\n") == [
        *("convert", "train", "train --resume", "score", "score", "")
    ]
    run_campaign(campaign, jobs, write_table)
    assert len(calls.read_text().split()) == 6
    assert [text.count("| a plain one |") for text in tables] == [1] * 4
    assert "mirrored | fold0 | 0 |" in tables[-1] and "mirrored" not in tables[0]
    assert "python -m benchmarks.campaign_scores OUT/runs/plain_fold0_seed0 DATA" in tables[-1]
    keep_scores(campaign, tmp_path / "kept.csv")
    elsewhere = campaign._replace(out=tmp_path / "elsewhere")
    restore_scores(elsewhere, tmp_path / "kept.csv")
    run_campaign(elsewhere, jobs, write_table)
    assert len(calls.read_text().split()) == 6 and table(elsewhere, "Title") == tables[-1]
    (elsewhere.out / "scores" / "flips_fold0_seed0.csv").unlink()
    with pytest.raises(subprocess.CalledProcessError):  # it is trained again for the flips alone
        run_campaign(elsewhere, jobs, write_table)
    assert calls.read_text().split("\n")[-3:] == ["convert", "train", ""]
    assert (elsewhere.out / "scores" / "plain_fold0_seed0.csv").exists()
    with (
        file_lock(tmp_path / "out" / "campaign.lock", "runs", "--out"),
        pytest.raises(UserError, match="it runs already"),
    ):
        run_campaign(campaign, jobs, write_table)


def test_a_run_is_scored_with_chosen_post_processing_and_gives_sam_its_boxes(tmp_path, monkeypatch):
    run = tmp_path / "runs" / "plain"
    run.mkdir(parents=True)
    split = {"validation": ["a"], "test": ["b"]}
    (run / "split.json").write_text(json.dumps(split))
    tune = "kerasseg.evaluation.tune_postprocessing.tune_run"
    tuned, loaded = [], []
    monkeypatch.setattr(tune, lambda folder: tuned.append((folder / "split.json").exists()))
    load = "kerasseg.prediction.model.load"
    monkeypatch.setattr(load, lambda *runs, overrides: loaded.append((*runs, overrides)))
    monkeypatch.setattr(campaign_scores, "zero_shot_sam", lambda run, data: run.with_name("sam"))
    monkeypatch.setattr(campaign_scores, "score_model", lambda model, given, data: [(*given, 1, 1)])
    other = run.with_name("other")
    for options in (["flips=[width]", f"--with={other}"], ["--tuned"], ["--tuned", "--sam"]):
        campaign_scores.main([str(run), "data", str(tmp_path / "scores.csv"), *options])
    copy = run.with_name("plain_tuned")
    boxes = ["model.sam.prompt=box", f"model.sam.boxes_from={copy}"]
    assert loaded == [(run, other, ["flips=[width]"]), (copy, []), (run.with_name("sam"), boxes)]
    assert tuned == [True] and not run.with_name("plain_part").exists()
    assert (tmp_path / "scores.csv").read_text().splitlines()[1] == "validation,test,1,1"


def test_two_runs_are_scored_together_and_their_minutes_added(tmp_path):
    one, other = Recipe("one", "the first"), Recipe("other", "the other")
    both = Recipe("both", "both", ("a=1",), run_of="one", averaged_with="other")
    campaign = Campaign("lgg_2d", tmp_path, tmp_path / "out", (one, other, both), lambda part: {})
    job = Job(both, "fold1", 0)
    runs = tmp_path / "out" / "runs"
    for folder in ("scores", "minutes"):
        (tmp_path / "out" / folder).mkdir(parents=True)
    for name, minutes in (("one", "3.0"), ("other", "4.0")):
        (runs / f"{name}_fold1_seed0").mkdir(parents=True)
        (runs / f"{name}_fold1_seed0" / "summary.json").touch()  # it is trained
        (tmp_path / "out" / "minutes" / f"{name}_fold1_seed0.json").write_text(minutes)
    scorer = tmp_path / "scorer.py"
    row = "case_id,side,dice,as_buda\\na,validation,0.5,0.6\\nb,test,0.7,0.8\\n"
    scorer.write_text(f"import sys; open(sys.argv[3], 'w').write('{row}'); print(*sys.argv[1:])")
    run_job(campaign._replace(scorer=(sys.executable, str(scorer))), job, print)
    said = (tmp_path / "out" / "logs" / "both_fold1_seed0.txt").read_text()
    scores = tmp_path / "out" / "scores" / "both_fold1_seed0.csv"
    first, second = (runs / f"{name}_fold1_seed0" for name in ("one", "other"))
    assert said.split() == [*map(str, (first, tmp_path, scores)), f"--with={second}", "a=1"]
    assert "| both | fold1 | 0 | 7.0, trained above | 0.500 | 1 |" in table(campaign, "Title")


def test_the_table_tells_one_fold_with_all_seeds_from_all_folds(tmp_path):
    recipe = Recipe("plain", "a plain one", ("training.epochs=2",))
    other = Recipe("plain_x", "another")
    campaign = Campaign("lgg_2d", tmp_path, tmp_path, (recipe, other), lambda part: {})
    for name in ("scores", "minutes"):
        (tmp_path / name).mkdir()
    dice = {("fold0", 0): 0.6, ("fold0", 1): 0.8, ("fold1", 0): 0.9}
    for (part, seed), value in dice.items():
        job = Job(recipe, part, seed)
        (tmp_path / "minutes" / f"{job.name}.json").write_text("3.0")
        rows = CaseDice("v", "validation", 0.5, 0.5), CaseDice(f"of {part}", "test", value, 0.4)
        write_scores(tmp_path / "scores" / f"{job.name}.csv", rows)
    shown = [line for line in table(campaign, "Title").splitlines() if "a plain one |" in line]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown]
    assert cells[0][1:6] == ["fold0", "0, 1", "3.0", "0.500", "1"]
    assert cells[0][6].startswith("0.700 (") and cells[0][8] == "0.600, 0.800"
    assert cells[1][1:6] == ["fold0, fold1", "0", "3.0", "0.500", "2"]
    assert cells[1][6].startswith("0.750 (") and cells[1][10] == "0.400"
    assert "kerasseg train --config lgg_2d data.root=DATA" in table(campaign, "Title")


def test_buda_leaves_out_the_outer_slices_and_all_but_the_largest_component():
    truth, prediction = np.zeros((2, 5, 6, 6), bool)
    truth[0] = True  # left out, and so are the 36 voxels that miss it
    truth[1:3, :3, :2] = True  # 12 voxels
    prediction[1:3, :2, :2] = True  # 8 of them
    prediction[3, 2, 2] = True  # touches at a corner: the same component
    prediction[1, 5, 5] = True  # another one, smaller
    prediction[3:5, 4:, 5] = True  # cut in half by leaving the last slice out
    assert dice_as_buda(truth, prediction) == pytest.approx(2 * 8 / (12 + 9))
    assert dice_as_buda(truth, truth & False) == 0


@pytest.mark.parametrize("campaign", [lgg, pairs], ids=["lgg", "pairs"])
def test_every_recipe_is_a_config_that_can_be_read(campaign, tmp_path):
    for recipe in campaign.RECIPES:
        settings = tuple(word for word in recipe.settings if not word.startswith("--"))
        job = Job(recipe._replace(settings=settings), campaign.PARTS[0], 0)
        config = {lgg: "configs/lgg_2d.yaml", pairs: "configs/pairs_2d.yaml"}[campaign]
        experiment = load_experiment(config, train_settings(job, tmp_path, tmp_path))
        assert experiment.pipeline.patch_size == experiment.data.size == (recipe.size, recipe.size)
        assert experiment.run.name == job.run


def test_blocks_of_pictures_keep_neighbours_together():
    names = [str(3 * number) for number in range(200)]
    for part in pairs.PARTS:
        sides = pairs.sides_of_part(names, part)
        assert Counter(sides.values()) == {"train": 140, "test": 40, "validation": 20}
        tested = sorted(int(name) // 3 for name in names if sides[name] == "test")
        if part.startswith("block"):
            assert tested == list(range(tested[0], tested[0] + 40))
        else:
            assert sum(b - a > 1 for a, b in pairwise(tested)) > 20


def test_patients_of_several_folders_come_into_one_by_links(tmp_path):
    for root, patient in (("one/kaggle_3m", "A"), ("two", "B")):
        folder = tmp_path / root / patient
        folder.mkdir(parents=True)
        (folder / f"{patient}_1_mask.tif").touch()
    for _ in range(2):  # the second time they are there
        joined = folder_of_links([tmp_path / "one", tmp_path / "two"], tmp_path / "joined")
    assert sorted(path.name for path in joined.iterdir()) == ["A", "B"]
    assert (joined / "A" / "A_1_mask.tif").exists()


def test_the_figure_sorts_the_cases_of_every_recipe():
    figure = draw_campaign({"a": [0.9, 0.2, 0.5], "b again": [0.4]}, {"a": [0.1, 0.3]})
    left, right = figure.axes
    assert [list(line.get_ydata()) for line in left.lines] == [[0.2, 0.5, 0.9], [0.4]]
    assert [list(line.get_ydata()) for line in right.lines] == [[0.1, 0.3]]
    assert figure.legends[0].texts[0].get_text() == "a: mean 0.533, median 0.500"
