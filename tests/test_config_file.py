import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kerasseg.config import Experiment
from kerasseg.config_file import (
    differences,
    dump_experiment,
    json_schema,
    known_keys,
    load_experiment,
)
from kerasseg.errors import UserError

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


def refuse(*overrides: str, text: str | None = None, tmp_path: Path | None = None) -> str:
    path = None
    if text is not None and tmp_path is not None:
        path = tmp_path / "experiment.yaml"
        path.write_text(text)
    with pytest.raises(UserError) as error:
        load_experiment(path, overrides)
    return str(error.value)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_is_read_and_written_back_unchanged(path, tmp_path):
    experiment = load_experiment(path)
    assert experiment.run.name == path.stem
    (tmp_path / "again.yaml").write_text(dump_experiment(experiment))
    assert load_experiment(tmp_path / "again.yaml") == experiment


def test_the_shipped_3d_config_writes_out_the_defaults():
    shipped = load_experiment("configs/brats20_3d.yaml")
    for section in ("pipeline", "model", "loss", "optimizer", "training", "evaluation", "split"):
        assert getattr(shipped, section) == getattr(Experiment(), section), section


def test_overrides_in_order_with_yaml_values():
    experiment = load_experiment(
        None,
        [
            "training.epochs=3",
            "training.epochs=4",
            "optimizer.learning_rate=1e-4",
            "pipeline.patch_size=[32, 48,64]",
            "training.early_stopping_patience=null",
            "run.name=a-b.c",
            "data.layout=brats_nifti",
            "data.root=scans",
            "data.label_map={1: 2, 4: 3}",
            "loss.dice.weight=1",
        ],
    )
    assert experiment.training.epochs == 4 and experiment.optimizer.learning_rate == 1e-4
    assert experiment.pipeline.patch_size == (32, 48, 64)
    assert experiment.training.early_stopping_patience is None
    assert experiment.data.label_map == {1: 2, 4: 3} and experiment.loss.dice.weight == 1
    assert experiment.store_root == Path("tfrecords/a-b.c")


LGG = "data.layout=lgg data.root=x model.target=binary"
PAIRS = (
    "data.layout=image_pairs data.root=x model.target=binary model.dimensions=2 "
    "pipeline.patch_size=[32,32]"
)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.epoch=3", ["training.epoch: unknown setting", "Did you mean training.epochs?"]),
        ("trainnig.epochs=3", ["trainnig: unknown setting", "Did you mean training"]),
        ("epochs=3", ["epochs: unknown setting", "Did you mean training.epochs?"]),
        ("pipeline.zzz=3", ["unknown setting", "Known here: pipeline.patch_size"]),
        ("training.epochs=0", ["found 0 (whole number)", "a whole number, at least 1"]),
        ("training.epochs=2.5", ["found 2.5 (number)", "allowed: a whole number"]),
        ("training.epochs=true", ["found true (true/false)", "allowed: a whole number"]),
        ("training.batch_size=two", ['found "two" (text)']),
        ("training.precision=float17", ["one of auto, float32, mixed_float16"]),
        ("pipeline.tumour_share=1.5", ["found 1.5", "at least 0.0, at most 1.0"]),
        (
            "pipeline.patch_size=[32,32]",
            ["patch_size [32, 32] does not fit", "[depth, height, width]"],
        ),
        ("optimizer.learning_rate=.nan", ["optimizer.learning_rate: found NaN"]),
        ("pipeline.patch_size=[40,50,64]", ["divisible by 16", "[32, 48, 64]"]),
        ("split.validation=0.6 split.test=0.5", ["leaves no patient to train on"]),
        ("data.layout=brats_h5", ["set data.root"]),
        ("data.modalities=[t1,pet]", ["['pet'] do not exist in a phantom"]),
        ("data.modalities=[t1,t1]", ["names a channel twice"]),
        ('data.label_map={"1":1}', ["data.label_map is not used by data.layout=phantom"]),
        ("data.layout=lgg data.root=x", ["only tumour from healthy", "set model.target=binary"]),
        (f"{LGG} data.modalities=[t2]", ["['t2'] do not exist in the files of lgg"]),
        (f"{LGG} data.classes=subregions", ["data.classes: lgg knows tumour only"]),
        (f"{LGG} data.spacing=[1,1,1]", ["do not say how large a voxel is"]),
        (f"{LGG} loss.dice.class_weights=[1,2]", ["has 2 number(s)", "1 channel(s) (tumour)"]),
        (f"{PAIRS} data.modalities=[red,t1]", ["image_pairs has [grey], or some of"]),
        (f"{PAIRS} model.dimensions=3", ["does not fit model.dimensions=3"]),
        (f"{PAIRS} pipeline.slices.axis=coronal", ["axis must be axial"]),
        (f"{PAIRS} data.patient_pattern=(", ["is no regular expression"]),
        (f"{PAIRS} data.patient_pattern=^a", ["has no group"]),
        (f"{PAIRS} data.patient_pattern=(a) data.patient_csv=b", ["are both set: keep one"]),
        ("data.layout=nifti data.root=x", ["needs a pattern per modality: set data.files"]),
        ('data.layout=nifti data.root=x data.files={"t1":a.nii}', ["data.files.t1", "no {case}"]),
        ('data.files={"t1":"{case}.nii"}', ["belong to data.layout=nifti, not phantom"]),
        (
            'data.layout=nifti data.root=x data.files={"t1":"/{case}.nii"}',
            ["must lie below data.root"],
        ),
        ("data.layout=msd data.root=x data.classes=tumour", ["needs data.label_map"]),
        ("data.spacing=[1,1,0]", ["data.spacing", "greater than 0"]),
        ("model.dimensions=2 pipeline.patch_size=[32,32,32]", ["needs [height, width]"]),
        ("pipeline.slices.axis=coronal", ["pipeline.slices is for model.dimensions=2"]),
        (
            "pipeline.slices.keep=tumour pipeline.slices.empty_share=0.5",
            ["leaves no empty slice"],
        ),
        ("split.method=kfold split.fold=5", ["split.fold 5 does not exist", "0 to 4"]),
        ("split.method=file", ["split.file=CSV belong together"]),
        ("loss.dice.weight=0 loss.focal.weight=0", ["nothing to learn"]),
        ("training.steps_per_epoch=5", ["not a multiple of training.gradient_accumulation 2"]),
        ("training", ["expected section.key=value"]),
        ("training.epochs=[", ["not valid YAML"]),
        ("run.name=2020-13-45", ["not valid YAML"]),
        ("training.epochs={{a}:1}", ["not valid YAML"]),
        ("run.name=2021", ["found 2021 (whole number)", "Quote it"]),
        ("training.epochs.more=3", ["training.epochs"]),
    ],
)
def test_refused_with_key_found_and_allowed(override, words):
    message = refuse(*override.split(" "))
    assert all(word in message for word in words), message


def test_refused_files(tmp_path):
    assert "experiment.yaml: line 2" in refuse(text="a: 1\n b: 2", tmp_path=tmp_path)
    message = refuse(text="training:\n  epochs: 1\n  epochs: 2\n", tmp_path=tmp_path)
    assert "line 3" in message and "'epochs' stands here a second time" in message
    assert "sections of `key: value`" in refuse(text="- 1", tmp_path=tmp_path)
    message = refuse(text="training:\n  epochs: many\n", tmp_path=tmp_path)
    assert f"{tmp_path / 'experiment.yaml'}: training.epochs" in message
    with pytest.raises(UserError, match=r"no such config file; there are .*phantom_3d.yaml"):
        load_experiment("configs/brats_3d.yaml")
    assert load_experiment(tmp_path / "experiment.yaml", ["training.epochs=7"]).training.epochs == 7


def test_several_mistakes_are_told_at_once():
    message = refuse("training.epochs=0", "pipeline.tumour_share=7")
    assert "training.epochs" in message and "pipeline.tumour_share" in message


def test_every_setting_has_a_description_and_limits_where_it_is_a_number():
    schema = json_schema()

    def walk(node, path):
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]] if "$ref" in node else node
        for name, child in node.get("properties", {}).items():
            if "$ref" in child or child.get("allOf"):
                walk(child, f"{path}{name}.")
                continue
            assert child.get("description"), path + name
            if child.get("type") in ("integer", "number") and "enum" not in child:
                assert {"minimum", "exclusiveMinimum"} & child.keys(), path + name

    walk(schema, "")
    json.dumps(schema)


def test_the_committed_schema_is_current():
    committed = json.loads(Path("configs/schema.json").read_text())
    assert committed == json_schema(), "run: kerasseg config --schema > configs/schema.json"


@given(st.sampled_from(sorted(known_keys())), st.data())
def test_a_misspelt_key_is_never_accepted(key, data):
    place = data.draw(st.integers(0, len(key) - 1))
    wrong = key[:place] + "x" + key[place:]
    if wrong in set(known_keys()):
        return
    message = refuse(f"{wrong}=1")
    assert "unknown setting" in message or "no section" in message


def test_differences_name_what_changed():
    old, new = load_experiment(None), load_experiment(None, ["training.epochs=3", "run.name=x"])
    assert differences(old, new, ["training", "model"]) == ["training.epochs: 50 -> 3"]


def test_a_changed_label_map_is_a_difference_and_home_is_home():
    scans = ["data.layout=brats_nifti", "data.root=scans"]
    old = load_experiment(None, [*scans, "data.label_map={1: 1}", "run.root=~/runs"])
    new = load_experiment(None, [*scans, "data.label_map={1: 2}"])
    assert len(differences(old, new, ["data"])) == 1
    assert old.run.root == Path.home() / "runs"


def test_yaml_anchors_and_merges(tmp_path):
    text = "run: &r\n  name: a\ntraining:\n  epochs: 3\nsplit:\n  <<: {seed: 4}\n"
    (tmp_path / "m.yaml").write_text(text)
    assert load_experiment(tmp_path / "m.yaml").split.seed == 4


def test_numbers_in_scientific_notation():
    assert yaml.safe_load("1e-4") == "1e-4", "what plain PyYAML makes of it"
    assert load_experiment(None, ["optimizer.learning_rate=1e-4"]).optimizer.learning_rate == 1e-4
