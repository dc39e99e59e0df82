"""Section `training`: what is refused when the config is read, and in which words."""

import re

import pytest

from kerasseg.cli.options import read_experiment
from kerasseg.config.load import dump_experiment, load_experiment
from kerasseg.errors import UserError

A_LIST = "expected a list in which each is one import path with its arguments"


def refuse(*overrides):
    with pytest.raises(UserError) as error:
        load_experiment(None, overrides)
    return str(error.value)


@pytest.mark.parametrize("device", ["gpu", "gpu:x", "gpu:1000", "gpu:-1", "GPU:0", "tpu", "''"])
def test_devices_that_are_none(device):
    message = refuse(f"training.devices={device}")
    found = device.strip("'")
    assert message == (
        f'override: training.devices: found "{found}", expected auto, all, cpu, or one GPU by its '
        "number from 0, such as gpu:0."
    )


def test_a_device_that_is_a_number():
    assert "training.devices: found 1, expected auto" in refuse("training.devices=1")


@pytest.mark.parametrize("device", ["auto", "all", "cpu", "gpu:0", "gpu:12"])
def test_devices(device):
    assert load_experiment(None, [f"training.devices={device}"]).training.devices == device


def test_xla_and_determinism_exclude_each_other():
    message = refuse("training.jit_compile=true", "training.deterministic=true")
    assert "training.jit_compile=true and deterministic=true exclude each other" in message
    assert "use jit_compile=auto" in message
    kept = load_experiment(None, ["training.jit_compile=auto", "training.deterministic=true"])
    assert kept.training.deterministic


@pytest.mark.parametrize("strategy", ["mirrored", "multi_worker"])
def test_xla_compiles_no_step_of_several_devices(strategy):
    message = refuse("training.jit_compile=true", f"training.strategy={strategy}")
    assert f"training.jit_compile=true does not work with strategy={strategy}" in message
    assert "use jit_compile=auto" in message
    for remedy in ("auto", "false"):
        load_experiment(None, [f"training.jit_compile={remedy}", f"training.strategy={strategy}"])


@pytest.mark.parametrize(
    ("callbacks", "found"),
    [
        ("3", "3"),
        ("null", "null"),
        ("keras.callbacks.TerminateOnNaN", '"keras.callbacks.TerminateOnNaN"'),
        ("{a.B: {}}", '{"a.B": {}}'),
        ("[a.B]", '"a.B"'),
        ("[{a.B: {}}, 4]", "4"),
        ("[{}]", "{}"),
        ("[{a.B: {}, a.C: {}}]", '{"a.B": {}, "a.C": {}}'),
        ("[{TerminateOnNaN: {}}]", '{"TerminateOnNaN": {}}'),
        ("[{a.B: null}]", '{"a.B": null}'),
        ("[{a.B: [log.csv]}]", '{"a.B": ["log.csv"]}'),
        ("[{.B: {}}]", '{".B": {}}'),
        ("[{a..B: {}}]", '{"a..B": {}}'),
        ("[{a.b c: {}}]", '{"a.b c": {}}'),
    ],
)
def test_callbacks_that_are_none(callbacks, found):
    message = refuse(f"training.callbacks={callbacks}")
    assert f"override: training.callbacks: found {found}, {A_LIST}" in message
    assert "such as [{keras.callbacks.CSVLogger: {filename: log.csv}}" in message


def test_callbacks_are_read_and_written_back(tmp_path):
    text = "training.callbacks=[{a.B: {x: 2, y: [1, z]}}, {c.d.E: {}}]"
    experiment = load_experiment(None, [text])
    assert experiment.training.callbacks == ({"a.B": {"x": 2, "y": [1, "z"]}}, {"c.d.E": {}})
    (tmp_path / "again.yaml").write_text(dump_experiment(experiment))
    assert load_experiment(tmp_path / "again.yaml") == experiment
    assert load_experiment(None, ["training.callbacks=[]"]).training.callbacks == ()


@pytest.mark.parametrize("share", ["-0.01", "1", "1.5", "no"])
def test_a_smoothing_that_forgets_nothing_or_too_much(share):
    message = refuse(f"training.score_smoothing={share}")
    assert "training.score_smoothing: found " in message
    assert "a number, at least 0.0, at most 0.99" in message


@pytest.mark.parametrize("share", [0, 0.99])
def test_the_limits_of_smoothing(share):
    experiment = load_experiment(None, [f"training.score_smoothing={share}"])
    assert experiment.training.score_smoothing == share


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.strategy=horovod", ['"horovod"', "one of auto, none, mirrored, multi_worker"]),
        ("training.precision=float16", ['"float16"', "mixed_float16, mixed_bfloat16"]),
        ("training.jit_compile=always", ['"always"', "auto or true or false"]),
        ("training.validate_volumes_every=0", ["found 0", "at least 1; or null"]),
        ("training.early_stopping_patience=0", ["found 0", "at least 1; or null"]),
    ],
)
def test_what_else_is_refused(override, words):
    message = refuse(override)
    assert message.startswith(f"override: {override.partition('=')[0]}: found ")
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("overrides", "epochs", "factor"),
    [
        ([], 3, 0.1),
        (["model.pretrained.weights=none"], 0, 1.0),
        (["model.pretrained.weights=encoder.h5"], 3, 0.1),
        (["model.init_from=runs/other"], 0, 1.0),
        (["training.freeze_encoder_epochs=0", "optimizer.encoder_factor=0.5"], 0, 0.5),
        (["model={dimensions: 2, target: binary, network: unet}"], 0, 1.0),
    ],
)
def test_the_encoder_is_held_back_where_it_has_pretrained_weights(overrides, epochs, factor):
    """One setting makes the weights random ones; the others follow."""
    pretrained = "model={dimensions: 2, target: binary, network: pretrained_unet, norm: batch}"
    experiment = load_experiment("configs/lgg_2d.yaml", [pretrained, *overrides])
    assert experiment.training.freeze_encoder_epochs == epochs
    assert experiment.optimizer.encoder_factor == factor
    assert experiment.warnings == []
    saved = dump_experiment(experiment)
    assert f"freeze_encoder_epochs: {epochs}" in saved and f"encoder_factor: {factor}" in saved


def test_an_encoder_of_random_weights_that_is_held_back_is_warned_of(capsys):
    held = ["optimizer.encoder_factor=0.1", "training.freeze_encoder_epochs=3"]
    read_experiment(None, ["run.name=none"])
    assert capsys.readouterr().err == ""
    (warning,) = read_experiment(None, held).warnings
    assert warning.startswith(
        "training.freeze_encoder_epochs and optimizer.encoder_factor hold back an encoder of "
        "random weights: leave them out"
    )
    assert capsys.readouterr() == ("", f"Warning: {warning}\n")
    (warning,) = load_experiment(None, held[:1]).warnings
    assert warning.startswith("optimizer.encoder_factor holds back") and "leave it out" in warning


@pytest.mark.parametrize(
    ("sam", "words"),
    [
        ("trained_blocks: 1", None),
        ("trained_blocks: 1, random_encoder: true", "an encoder of random weights: leave it out"),
        ("trained_blocks: 1, weights: none", "an encoder of random weights: leave it out"),
        ("weights: medsam-lite", "an encoder that is frozen: leave it out, or train a part of it"),
    ],
)
def test_what_holds_back_the_encoder_of_a_sam(sam, words):
    held = (f"model.sam={{{sam}}}", "training.freeze_encoder_epochs=1")
    experiment = load_experiment("sam_lgg_2d", held)
    assert experiment.optimizer.encoder_factor == 1, "as ever: it is for model.pretrained"
    assert load_experiment("sam_lgg_2d", held[:1]).training.freeze_encoder_epochs == 0
    found = [text for text in experiment.warnings if "hold" in text]
    assert len(found) == (words is not None) and all(words in text for text in found)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.interpolation=linear"], ["data.interpolation has no effect without data.spacing"]),
        (["data.interpolation=linear", "data.spacing=[1,1,1]"], []),
        (["data.h5_slices=20"], ["it is for data.layout=brats_h5"]),
        (["metrics.empty=skip", "metrics.empty_distance=9"], ["has no effect with metrics.empty"]),
        (["metrics.empty_distance=9"], []),
        (
            ["optimizer={schedule: step, step_epochs: [30,50]}", "training.epochs=50"],
            [r"step_epochs \[30, 50\] end with 50, but training.epochs is 50"],
        ),
        (["optimizer={schedule: step, step_epochs: [30,49]}", "training.epochs=50"], []),
        (["optimizer={schedule: step, step_epochs: [30]}", "training.epochs=0"], []),
        (
            ["optimizer={schedule: constant, final_fraction: 0.3}"],
            ["final_fraction has no effect with optimizer.schedule=constant"],
        ),
        (["split.fold=1"], ["split.fold=1 has no effect with split.method=ratio: .*kfold or file"]),
        (["split.method=kfold", "split.fold=1", "split.folds=3", "split.test=0.1"], []),
        (["split.method=kfold", "split.validation=0.3"], ["for split.method=ratio"]),
        (["split={method: file, file: a.csv, seed: 3, test: 0.3}"], ["split.test", "split.seed"]),
    ],
)
def test_settings_without_effect_are_said(overrides, words):
    warnings = load_experiment(None, overrides).warnings
    assert len(warnings) == len(words)
    assert all(re.search(word, warning) for word, warning in zip(words, warnings, strict=True))
