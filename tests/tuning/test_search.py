"""Tune files as they are read, with overrides, and what is wrong with them before any trial."""

import pytest
import yaml

from kerasseg.config.load import load_experiment
from kerasseg.errors import UserError
from kerasseg.tuning.search import (
    check_folder,
    load_search,
    read_search_file,
    write_search_file,
)
from tests.tuning.searches import SPACE, make_search, write_files


def test_the_base_is_found_beside_the_file_and_overrides_reach_both(tmp_path):
    path = write_files(tmp_path / "deep")
    search = load_search(
        path,
        [
            "search.max_trials=3",
            "training.batch_size=4",
            "search.space.model.features={choice: [[4], [8]]}",
            "search.space.optimizer.learning_rate=null",
            "search.space.optimizer.ema={float: [0.9, 0.99]}",
        ],
    )
    assert search.settings.max_trials == 3 and search.base.training.batch_size == 4
    assert [p.name for p in search.space] == ["model.features", "optimizer.ema"]
    assert search.folder == tmp_path / "deep" / "tuning" / "toy" and search.epochs == 2
    assert search.base.run.name == "tiny"
    kept = yaml.safe_load(search.as_yaml())
    assert kept["search"]["objective"] == "val_dice_smoothed"
    assert kept["search"]["direction"] == "max"
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(kept["experiment"]))
    assert load_experiment(again) == search.base


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (
            {"optimizer.lr": {"float": [1e-4, 1e-3]}},
            "search.space: optimizer.lr: 0.0001 cannot be tried: optimizer.lr: unknown setting.",
        ),
        (
            {"optimizer.learning_rat": {"float": [1e-4, 1e-3]}},
            "Did you mean optimizer.learning_rate?",
        ),
        (
            {"optimizer.learning_rate": {"float": [1e-4, 20]}},
            "optimizer.learning_rate: 20 cannot be tried: optimizer.learning_rate: found 20",
        ),
        ({"optimizer.name": {"choice": ["adam", "adamm"]}}, '"adamm" cannot be tried'),
        (
            {"model.features": {"choice": [[4, 6], [4, 6, 8, 8, 8]]}},
            "[4, 6, 8, 8, 8] cannot be tried: pipeline.patch_size [8, 16, 12] must be divisible",
        ),
        ({"loss.7.dice": {"float": [0.1, 1]}}, "loss is a list of 2 term(s)"),
        (
            {"optimizer.power": {"float": [0.5, 1.5]}},
            "optimizer.power is for optimizer.schedule=polynomial",
        ),
    ],
)
def test_settings_and_values_are_checked_before_the_first_trial(tmp_path, space, words):
    with pytest.raises(UserError) as error:
        make_search(tmp_path, space)
    assert words in str(error.value) and "tune.yaml" in str(error.value)


@pytest.mark.parametrize(
    "space",
    [
        {"evaluation.overlap": {"float": [0.1, 0.9]}},
        {"postprocessing.minimum_enhancing": {"float": [0, 900]}},
    ],
)
def test_what_changes_scores_of_whole_volumes_alone_needs_one_of_them(tmp_path, space):
    (name,) = space
    words = f"tune.yaml: search.space: {name} cannot be searched: .* val_dice_smoothed: leave it"
    with pytest.raises(UserError, match=words):
        make_search(tmp_path, space)
    volumes, objective = ["training.validate_volumes_every=1"], "val_volume_dice_mean"
    search = make_search(tmp_path, space, overrides=volumes, objective=objective)
    assert [parameter.name for parameter in search.space] == [name]


def test_values_that_go_together_with_some_others_are_fine(tmp_path):
    """Five levels need another patch, and this learning rate belongs to that optimiser."""
    space = {
        "model.features": {"choice": [[4, 6], [4, 6, 8, 8, 8]]},
        "pipeline.patch_size": {"choice": [[8, 16, 12], [32, 32, 32]]},
        "optimizer.name": {"choice": ["adam", "sgd"]},
        "optimizer.momentum": {"float": [0.5, 0.9], "when": {"optimizer.name": "sgd"}},
        "loss.0.dice": {"float": [0.1, 1.0]},
        "augment.preset": {"choice": ["none", "light"]},
    }
    assert len(make_search(tmp_path, space).space) == 6
    del space["optimizer.momentum"]["when"]
    with pytest.raises(UserError, match=r'optimizer.name: "adam" cannot be tried: optimizer.mom'):
        make_search(tmp_path, space)


def test_a_large_space_is_drawn_from_and_still_finds_the_value_that_is_wrong(tmp_path):
    space = {
        f"optimizer.{name}": {"float": [0.1, 0.9]} for name in ("beta_1", "beta_2", "ema", "power")
    }
    space["optimizer.schedule"] = {"choice": ["polynomial", "cosine"]}
    space["optimizer.power"]["when"] = {"optimizer.schedule": "polynomial"}
    space |= {f"loss.{i}.{n}": {"float": [0.1, 1]} for i, n in enumerate(("dice", "focal"))}
    space["training.batch_size"] = {"int": [1, 40]}
    space["pipeline.patches_per_volume"] = {"int": [1, 4]}
    make_search(tmp_path, space)
    space["optimizer.beta_2"] = {"float": [0.5, 1.0]}
    with pytest.raises(UserError, match=r"optimizer.beta_2: 1.0 cannot be tried"):
        make_search(tmp_path, space)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["search.tuner=bayes"], 'search.tuner: found "bayes" (text), allowed: one of random'),
        (["search.max_trial=3"], "search.max_trial: unknown setting. Did you mean search.max_tr"),
        (["search.direction=up"], "search.direction"),
        (
            ["search.objective=val_loss", "search.direction=max"],
            "search.direction is max, but val_loss is better the lower it is: leave "
            "search.direction out, or set it to min.",
        ),
        (["search.direction=min"], "val_dice_smoothed is better the higher it is"),
        (
            ["search.objective=sharpness", "training.callbacks=[{keras.callbacks.Callback: {}}]"],
            "search.direction is needed, as nothing is known here of sharpness",
        ),
        (["search.factor=4"], "search.factor is for search.tuner=hyperband, but it is random"),
        (["search.name=a/b"], "search.name"),
        (["search.objective=val_dise"], "search.objective: val_dise is not logged"),
        (["search.objective=val_dise"], "Did you mean val_dice?"),
        (["training.epochz=3"], "training.epochz: unknown setting. Did you mean training.epochs"),
        (["search.space={}"], "search.space"),
        (["search=3"], "search: found 3 (whole number), allowed: a section"),
    ],
)
def test_what_is_wrong_in_the_file_is_said(tmp_path, overrides, words):
    with pytest.raises(UserError) as error:
        load_search(write_files(tmp_path), overrides)
    assert words in str(error.value)


def test_a_file_without_a_search_and_a_base_that_is_missing(tmp_path):
    path = write_files(tmp_path)
    values = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(values | {"base": "nowhere.yaml"}))
    with pytest.raises(UserError, match=r"nowhere.yaml: no such config file"):
        load_search(path)
    path.write_text(yaml.safe_dump(values | {"overrides": ["training.epochs"]}))
    with pytest.raises(UserError, match=r"tune.yaml: overrides: .*expected section.key=value"):
        load_search(path)
    for text in ("", "base: base.yaml", (path.parent / "base.yaml").read_text()):
        path.write_text(text)
        with pytest.raises(UserError, match=r"tune.yaml: there is no section search, so this is"):
            load_search(path)
    with pytest.raises(UserError, match="no such config file"):
        load_search(tmp_path / "none.yaml")


def test_metrics_that_are_logged_may_be_the_objective(tmp_path):
    for name in ("val_dice", "val_loss", "val_dice_ET", "val_recall", "loss"):
        settings = make_search(tmp_path, SPACE, objective=name).settings
        assert settings.objective == name
        assert settings.direction == ("min" if name.endswith("loss") else "max")
    with pytest.raises(UserError, match="val_volume_dice_mean is not logged"):
        make_search(tmp_path, SPACE, objective="val_volume_dice_mean")
    overrides = ["training.validate_volumes_every=1"]
    search = make_search(tmp_path, SPACE, overrides=overrides, objective="val_volume_dice_mean")
    assert search.settings.direction == "max"


def test_a_search_of_an_older_version_that_went_the_wrong_way_is_still_read(tmp_path):
    search = make_search(tmp_path, SPACE, objective="val_loss")
    write_search_file(search)
    path = search.folder / "search.yaml"
    path.write_text(path.read_text().replace("direction: min", "direction: max"))
    assert read_search_file(search.folder)[0].direction == "max"
    with pytest.raises(UserError, match=r"search\.direction: max -> min"):
        check_folder(search)
