import ast
import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kerasseg.config.experiment import Experiment
from kerasseg.config.load import differences, dump_experiment, load_experiment
from kerasseg.config.messages import json_schema, known_keys
from kerasseg.errors import UserError
from kerasseg.records.manifest import store_settings

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("[!t]*.yaml"))  # not tune_*.yaml


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
    for section in ("pipeline", "model", "optimizer", "training", "evaluation", "split"):
        assert getattr(shipped, section) == getattr(Experiment(), section), section
    dice, focal = shipped.loss
    assert dice.weights == (1.5, 1, 2), "of NCR, ED, ET, which no default can name"
    assert (dice.model_copy(update={"weights": None}), focal) == Experiment().loss


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
            "loss.0.dice=1",
            "loss.0.weights=[1,2,3]",
        ],
    )
    assert experiment.training.epochs == 4 and experiment.optimizer.learning_rate == 1e-4
    assert experiment.pipeline.patch_size == (32, 48, 64)
    assert experiment.training.early_stopping_patience is None
    assert experiment.data.label_map == {1: 2, 4: 3}
    dice, focal = experiment.loss
    assert dice.dice == 1 and dice.weights == (1, 2, 3) and focal == Experiment().loss[1]
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
        ("training.epochs=-1", ["found -1 (whole number)", "a whole number, at least 0"]),
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
        (f"{LGG} loss.0.weights=[1,2]", ["has 2 number(s)", "1 channel(s)", "each of tumour"]),
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
        (
            'data.layout=nifti data.root=x data.files={"t1":"{patient}/{case}.nii"} '
            "data.modalities=[t1] data.segmentation=seg/{case}.nii",
            ["{patient} must stand in all patterns or in none"],
        ),
        ("data.layout=msd data.root=x data.classes=tumour", ["needs data.label_map"]),
        ("data.spacing=[1,1,0]", ["data.spacing.2: found 0", "above 0.0"]),
        ("model.dimensions=2 pipeline.patch_size=[32,32,32]", ["needs [height, width]"]),
        ("pipeline.slices.axis=coronal", ["pipeline.slices is for model.dimensions=2"]),
        (
            "pipeline.slices.keep=tumour pipeline.slices.empty_share=0.5",
            ["leaves no empty slice"],
        ),
        ("split.method=kfold split.fold=5", ["split.fold 5 does not exist", "0 to 4"]),
        ("split.method=file", ["split.file=CSV belong together"]),
        ("loss.0.dice=0 loss.1.focal=0", ["nothing to learn: give one a weight"]),
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


DICE_OPTIONS = "Known for dice: weights, smooth, reduction, squared."
A_LIST = "loss: expected a list of terms, each a loss with its weight and options, such as ["
A_TERM = "loss.0: expected one of dice, generalised_dice, jaccard"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["loss=3"], [A_LIST, "found 3 (whole number)"]),
        (["loss=dice"], [A_LIST, 'found "dice" (text)']),
        (["loss=[]"], [A_LIST, "found [] (list)"]),
        (["loss=null"], [A_LIST, "found null (nothing)"]),
        (["loss={dice: 1}"], [A_LIST, 'found {"dice": 1} (section)']),
        (["loss={dice: {weight: 0.5}}"], [A_LIST, 'found {"dice": {"weight": 0.5}} (section)']),
        (["loss=[3]"], [A_TERM, "such as {dice: 0.5}, found 3 (whole number)"]),
        (["loss=[dice]"], [A_TERM, 'found "dice" (text)']),
        (["loss=[{}]"], [A_TERM, "found keys none"]),
        (["loss=[{dic: 1}]"], [A_TERM, "with its weight", "found keys dic.", "Did you mean dice?"]),
        (
            ["loss=[{dice: 1, focal: 2}]"],
            ["loss.0: found dice and focal", "one loss: make it [{dice: 1}, {focal: 2}]"],
        ),
        (["loss.0.focal=2"], ["override: loss.0: found dice and focal"]),
        (
            ["loss=[{dice: 1, gamma: 2}]"],
            ["loss.0.gamma: unknown option of dice", "option of focal_tversky and", DICE_OPTIONS],
        ),
        (["loss.0.smoth=2"], ["loss.0.smoth: unknown", "Did you mean smooth?", DICE_OPTIONS]),
        (["loss.0.zzz=2"], [f"loss.0.zzz: unknown option of dice. {DICE_OPTIONS}"]),
        (["loss=[{focal: -1}]"], ["loss.0.focal: found -1 (whole number), allowed: a number, at"]),
        (["loss=[{dice: {weight: 1}}]"], ["loss.0.dice: found", "allowed: a number"]),
        (["loss.0.dice=.inf"], ["loss.0.dice: found Infinity (number)"]),
        (["loss.0.smooth=no"], ["loss.0.smooth: found false (true/false), allowed: a number, abo"]),
        (["loss.0.reduction=mean"], ["loss.0.reduction", "one of batch, sample"]),
        (["loss.0.weights=[]"], ["loss.0.weights: found []", "a list of at least 1"]),
        (["loss.0.weights=[1,-2,0]"], ["loss.0.weights.1: found -2", "a number, at least 0."]),
        (
            ["loss=[{focal: 1, alpha: 2}]"],
            [
                "loss.0.alpha: found 2 (whole number), allowed: a number, at least 0, at most 1; "
                "or a list, each a number, at least 0; or null."
            ],
        ),
        (["loss.1.alpha=[0.1,x,0.2]"], ['loss.1.alpha.1: found "x" (text), allowed: a number']),
        (
            ["loss=[{focal: 1, alpha: [1,2]}]"],
            ["loss.0.alpha has 2 number(s)", "3 channel(s): give one for each of NCR, ED, ET, or"],
        ),
        (["loss=[{focal: 1, alpha: [0,1,2]}]"], ["loss.0.alpha has 2", "at most 1 each"]),
        (["loss=[{focal: 1, alpha: [0,0,0]}]"], ["loss.0.alpha are all 0"]),
        (["loss.0.weights=[0,0,0]"], ["loss.0.weights are all 0: give one class a weight"]),
        (
            ["model.target=labels", "loss.0.weights=[1,2]"],
            ["4 channel(s)", "each of background, NCR, ED, ET or NCR, ED, ET, or null"],
        ),
        (
            ["model.target=labels", "loss=[{cross_entropy: 1, weights: [1,2,3]}]"],
            ["has 3 number(s)", "each of background, NCR, ED, ET, or null"],
        ),
        (["model.target=labels", "loss.1.alpha=[1,2,3]"], ["loss.1.alpha has 3 number(s)"]),
        (["loss=[{dice: 0}]"], ["every term has the weight 0", "nothing to learn"]),
        (["loss=[{boundary: 1, width: 4}]"], ["loss.0.width: found 4", "one of 3, 5, 7"]),
        (
            ["loss=[{dice: 1}, {boundary: 1}]", "pipeline.patch_size=[16,4,16]"],
            ["loss.1.tolerance 5 is larger than the smallest side, 4 voxels, of pipeline.patch_si"],
        ),
        (
            ["loss=[{boundary: 1, width: 7}]", "pipeline.patch_size=[6,16,16]"],
            ["loss.0.width 7 is larger than the smallest side, 6 voxels"],
        ),
        (
            ["loss=[{boundary: 1}]", "pipeline.patch_size=[16,16,16]", "model.deep_supervision=2"],
            ["loss.0.tolerance 5", "4 voxels at the lowest head of model.deep_supervision"],
        ),
        (["loss.5.dice=1"], ["'loss.5.dice=1'", "2 term(s): loss.0 (dice), loss.1 (focal)"]),
        (["loss.2={dice: 1}"], ["2 term(s): loss.0 (dice), loss.1 (focal)"]),
        (["loss.dice.weight=1"], ["2 term(s): loss.0 (dice), loss.1 (focal)", "'loss=[{dice:"]),
        (["loss=[x]", "loss.0.dice=1"], ["1 term(s): loss.0 (?)"]),
    ],
)
def test_refused_losses_in_one_line_each(overrides, words):
    message = refuse(*overrides)
    assert all(word in message for word in words), message
    assert "\n" not in message, message


def test_two_mistakes_in_one_term_are_two_lines():
    lines = refuse("loss=[{dice: -1, smoth: 2}]").splitlines()
    assert len(lines) == 2
    assert "loss.0.dice: found -1" in lines[0] and "loss.0.smoth: unknown" in lines[1]


def test_the_loss_of_a_file_is_named_by_the_file_unless_an_override_changed_it(tmp_path):
    text = "loss: [{dice: 1, weights: [1, 2, 3]}, {focal: -1}]"
    message = refuse(text=text, tmp_path=tmp_path)
    assert message == (
        f"{tmp_path / 'experiment.yaml'}: loss.1.focal: found -1 (whole number), allowed: a "
        "number, at least 0."
    )
    loss = load_experiment(tmp_path / "experiment.yaml", ["loss.1.focal=2"]).loss
    assert loss[0].weights == (1, 2, 3) and loss[1].focal == 2
    assert refuse("loss.1.focal=-2", text=text, tmp_path=tmp_path).startswith("override: loss.1.f")


UNET_2D = "model.dimensions=2 pipeline.patch_size=[32,32]"
PRETRAINED = f"{UNET_2D} model.network=pretrained_unet"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.kernel=4", ["model.kernel: found 4", "one of 1, 3, 5, 7"]),
        (
            "model.encoder_blocks=0",
            [
                "model.encoder_blocks: found 0 (whole number), allowed: a whole number, at least "
                "1, at most 32; or a list, each a whole number, at least 1, at most 32."
            ],
        ),
        (
            "model.encoder_blocks=[0,1,1,1,1]",
            ["model.encoder_blocks.0: found 0 (whole number), allowed: a whole number, at least 1"],
        ),
        ("model.encoder_blocks=[1,1]", ["encoder_blocks has 2", "5, one for each level and the"]),
        ("model.decoder_blocks=[1,1]", ["decoder_blocks has 2", "4, one for each level, or a"]),
        ("model.network=pretrained_unet", ["pretrained_unet is 2-D: set model.dimensions=2"]),
        (f"{PRETRAINED} model.bottleneck=9", ["model.bottleneck is for model.network=unet"]),
        (
            "model.pretrained.weights=none",
            ["model.pretrained is for model.network=pretrained_unet"],
        ),
        ("model.deep_supervision=4", ["4 heads do not fit a decoder of 4 level(s): at most 3"]),
        ("model.norm=group model.norm_groups=5", ["norm_groups 5 does not divide 32 channels"]),
        (
            f"{PRETRAINED} model.norm=group model.norm_groups=12",
            ["norm_groups 12 does not divide 16 channels"],
        ),
        ("model.norm_groups=4", ["norm_groups is for model.norm=group, but it is instance"]),
        ("model.activation=relu model.negative_slope=0.1", ["is for model.activation=leaky_relu"]),
        ("model.dropout.place=encoder", ["has no effect: set model.dropout.rate above 0"]),
        ("model.dropout.rate=1", ["model.dropout.rate: found 1", "under 1.0"]),
        ("model.dropout.rat=0.1", ["Did you mean model.dropout.rate?"]),
        ("model.init_part=encoder", ["model.init_part needs model.init_from"]),
        ("model.target=region", ["one of labels, subregions, regions, binary"]),
        (
            "optimizer.name=adamax",
            ["one of adamw, adam, sgd, lion, or a Keras optimizer by its import path"],
        ),
        (
            "optimizer.power=2",
            ["optimizer.power is for optimizer.schedule=polynomial", "is cosine"],
        ),
        ("optimizer.momentum=0.5", ["is for optimizer.name=sgd, but it is adamw"]),
        (
            "optimizer.name=sgd optimizer.beta_1=0.5",
            ["is for optimizer.name=adam or adamw or lion"],
        ),
        ("optimizer.schedule=step", ["needs optimizer.step_epochs, such as [30,40]"]),
        ("optimizer.schedule=cosine_restarts", ["needs optimizer.restart_epochs"]),
        (
            "optimizer.schedule=plateau optimizer.warmup_epochs=1",
            ["plateau starts at the peak: set optimizer.warmup_epochs=0"],
        ),
        (
            "optimizer.schedule=step optimizer.step_epochs=[4,3]",
            ["optimizer.step_epochs must rise"],
        ),
        ("optimizer.schedule=step optimizer.step_epochs=[4,0]", ["step_epochs.1: found 0"]),
    ],
)
def test_refused_settings_of_the_model_and_the_optimiser_in_one_line(override, words):
    message = refuse(*override.split(" "))
    assert all(word in message for word in words), message
    assert "\n" not in message, message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "augment.transforms=[{flip: {p: 2}}]",
            "0.flip.p: found 2 (whole number), allowed: a number, at least 0.0, at most 1.0.",
        ),
        (
            "augment.transforms=[{flip: {axes: [up]}}]",
            'transforms.0.flip.axes.0: found "up" (text), allowed: one of depth, height, width.',
        ),
        ("augment.transforms=3", "allowed: a list, each a section; or null."),
        ("augment.transforms=[{rotate90: {axes: [depth]}}]", 'axes: found ["depth"] (list), allo'),
        ("augment.transforms=[{blurr: {}}]", "Did you mean augment.transforms.0.blur?"),
        ("augment.transforms=[{blur: {x: 1}}]", "Known here: augment.transforms.0.blur.sigma, "),
        ("postprocessing.thresholds={ET: 2}", "thresholds.ET: found 2 (whole number), allowed: a "),
        ("data.files={t1: 3}", "data.files.t1: found 3 (whole number), allowed: text. Quote it"),
    ],
)
def test_mistakes_within_lists_and_mappings_say_what_is_allowed_there(override, message):
    assert message in refuse(override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("[{flip: {axes: []}}]", "axes [] leaves nothing to do: name some of depth, height, width"),
        ("[{ghosting: {axes: []}}]", "axes [] leaves nothing to do"),
        ("[{flip: {axes: [width, width]}}]", "names an axis twice"),
        ("[{spatial: {p_elastic: 0.5, knots: 8}}]", "has knots and p_elastic without elastic"),
        ("[{flip: {axes: [depth]}}]", "axes ['depth'] of flip do nothing in slices of"),
        ("[{ghosting: {axes: [depth]}}]", "whose axes are height and width: name one of them"),
        ("[{channel_copy: {source: 4}}]", "channel_copy has source 4, but data.modalities ["),
    ],
)
def test_transforms_that_would_do_nothing_are_refused(override, message):
    slices = ("model.dimensions=2", "pipeline.patch_size=[32,32]")
    assert message in refuse(f"augment.transforms={override}", *slices)


def test_a_run_of_before_means_what_it_meant(tmp_path):
    """Its config.yaml has every setting of its time, so what it lacks was not there."""
    path = tmp_path / "config.yaml"
    text = dump_experiment(load_experiment(None, ["data.layout=lgg", "data.root=.", *FLAT_BINARY]))
    kept = [line for line in text.splitlines() if "skull_" not in line and "air_is" not in line]
    path.write_text("\n".join(kept))
    now = load_experiment(path)
    assert not now.data.skull_stripped and now.evaluation.air_is_background
    assert store_settings(now)["data.skull_stripped"] is False
    (tmp_path / "environment.json").write_text("{}")
    before = load_experiment(path)
    assert before.data.skull_stripped and not before.evaluation.air_is_background
    assert "data.skull_stripped" not in store_settings(before), "stores of before do not name it"
    assert load_experiment(path, ["evaluation.air_is_background=true"]).evaluation.air_is_background


FLAT_BINARY = ("model.dimensions=2", "pipeline.patch_size=[32,32]", "model.target=binary")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.label_map={0:0,1:1}", "write a space behind the colon: 0: 0."),
        ("loss={dice:0.5}", "write a space behind the colon: dice: 0.5."),
        ("data.segmentation={case}_seg.nii.gz", "needs quotes, such as '{case}_flair.nii.gz'."),
        ("data={root: x, root: y}", "key 'root' stands here a second time"),
        ("pipeline.patch_size=32,48,48", "Write [32,48,48]."),
        ("augment.transforms=[flip]", "Write {flip: {}} for one with its defaults."),
        ("augment.transforms=[{mirrr: {}}]", "unknown setting. Known here: flip, rotate90, "),
        ("run.name=a/b", "allowed: text, of letters, digits, _, . and -, at most 100 long."),
    ],
)
def test_what_was_meant_is_said(override, message):
    assert message in refuse(override)


def test_a_mistake_on_the_command_line_is_not_the_files(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("model: {dimensions: 3}")
    with pytest.raises(UserError, match=r"^override: pipeline\.patch_size .* must be divisible"):
        load_experiment(path, ["pipeline.patch_size=[33,48,48]"])
    path.write_text("pipeline: {patch_size: [33, 48, 48]}")
    with pytest.raises(UserError, match=f"^{path}: pipeline.patch_size .* must be divisible"):
        load_experiment(path, ["training.epochs=3"])
    path.write_text("data:\n  files:\n    t1: {case}_t1.nii\n")
    with pytest.raises(UserError, match=r"line 3 .*a pattern that begins with a brace needs"):
        load_experiment(path)


def test_an_optimiser_that_is_no_name_is_answered_with_the_names():
    assert "found 3, expected one of adamw, adam, sgd, lion, or a" in refuse("optimizer.name=3")


def test_a_tune_file_is_no_experiment():
    with pytest.raises(UserError, match="tune_lgg_2d: is a tune file: give it to kerasseg tune"):
        load_experiment("tune_lgg_2d")


def test_an_unknown_section_is_answered_with_each_section_once():
    message = refuse("frobnicate=1")
    assert message.endswith("Known here: " + ", ".join(Experiment.model_fields) + ".")


def test_a_mistake_in_data_is_not_followed_by_what_only_follows_from_it():
    assert refuse("data.root=3").count("\n") == 0


def test_refused_files(tmp_path):
    assert "experiment.yaml: line 2" in refuse(text="a: 1\n b: 2", tmp_path=tmp_path)
    message = refuse(text="training:\n  epochs: 1\n  epochs: 2\n", tmp_path=tmp_path)
    assert "line 3" in message and "'epochs' stands here a second time" in message
    assert "the first is in line 2: put both together" in message
    # Ten lines that stand for 9 to the 9th values, through lists and through merged mappings.
    for first, line in (("[x]", " [{}]"), ("{k: 1}", "\n  <<: [{}]")):
        bomb = f"a0: &a0 {first}\n" + "".join(
            f"a{i}: &a{i}" + line.format(", ".join([f"*a{i - 1}"] * 9)) + "\n" for i in range(1, 10)
        )
        assert "more than 100000 values: write them out" in refuse(text=bomb, tmp_path=tmp_path)
    assert "more than 100000 values" in refuse(text="a: &a [*a]\n", tmp_path=tmp_path)
    assert "recursion" in refuse(text="[" * 700, tmp_path=tmp_path)
    assert "sections of `key: value`" in refuse(text="- 1", tmp_path=tmp_path)
    message = refuse(text="training:\n  epochs: many\n", tmp_path=tmp_path)
    assert f"{tmp_path / 'experiment.yaml'}: training.epochs" in message
    with pytest.raises(UserError, match=r"no such config file; there are .*phantom_3d.yaml"):
        load_experiment("configs/brats_3d.yaml")
    assert load_experiment(tmp_path / "experiment.yaml", ["training.epochs=7"]).training.epochs == 7


def test_a_ready_config_is_found_by_its_name_in_any_folder(tmp_path, monkeypatch):
    shipped = load_experiment("configs/msd_3d.yaml", ["data.root=FOLDER"])
    monkeypatch.chdir(tmp_path)
    assert load_experiment("msd_3d", ["data.root=FOLDER"]) == shipped
    with pytest.raises(UserError, match=r"^override: training.epochs: "):
        load_experiment("msd_3d", ["data.root=FOLDER", "training.epochs=many"])
    (tmp_path / "msd_4d.yaml").touch()
    with pytest.raises(UserError, match=r"there are msd_4d.yaml; ready configs.* msd_3d, nifti_3d"):
        load_experiment("msd_2d")
    with pytest.raises(UserError, match=r"no such config file; ready configs.* are brats20_3d, "):
        load_experiment("configs/msd_3d.yaml")
    (tmp_path / "msd_3d").mkdir()
    assert load_experiment("msd_3d", ["data.root=FOLDER"]) == shipped, "a folder is no config"
    (tmp_path / "msd_3d").rmdir()
    (tmp_path / "msd_3d").write_text("run: {name: own}")
    assert load_experiment("msd_3d").run.name == "own", "a file of this very name comes first"


def test_several_mistakes_are_told_at_once():
    message = refuse("training.epochs=-1", "pipeline.tumour_share=7")
    assert "training.epochs" in message and "pipeline.tumour_share" in message


def test_every_setting_has_a_description_and_limits_where_it_is_a_number():
    schema = json_schema()

    def walk(node, path):
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]] if "$ref" in node else node
        for term in node.get("items", {}).get("oneOf", []):
            walk(term, f"{path}<term>.")
        for name, child in node.get("properties", {}).items():
            walk(child, f"{path}{name}.")
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


def test_differences_of_losses_name_the_option_or_the_terms():
    old = load_experiment(None)

    def changed(*overrides):
        return differences(old, load_experiment(None, overrides), ["loss"])

    assert changed() == [] == changed("loss=[{dice: 0.5}, {focal: 0.5, gamma: 2}]")
    assert changed("loss.1.gamma=3", "loss.0.weights=[1,2,3]") == [
        "loss.0.weights: None -> [1.0, 2.0, 3.0]",
        "loss.1.gamma: 2.0 -> 3.0",
    ]
    (line,) = changed("loss=[{dice: 0.5}]")
    assert line.startswith("loss: [{") and "'focal': 0.5" in line.partition(" -> ")[0]
    (line,) = changed("loss=[{focal: 0.5}, {dice: 0.5}]")
    assert line.startswith("loss: [{")


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


def test_every_setting_that_a_message_or_a_page_names_exists():
    """A name such as split.folds in a text of the package, but for docstrings and the loss's."""
    keys = set(known_keys())
    sections = "|".join({key.split(".")[0] for key in keys} - {"loss"})
    name = re.compile(rf"(?<![\w./\[])(?:{sections})(?:\.[a-z][a-z_0-9]*)+(?![\w(/])")
    files = ("csv", "h5", "json", "jsonl", "keras", "md", "npz", "pkl", "py", "yaml")
    package, texts = Path(__file__).parents[2] / "kerasseg", []
    for path in package.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        statements = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        constants = [n for n in nodes if isinstance(n, ast.Constant) and id(n) not in statements]
        texts += [(path.name, node.value) for node in constants if isinstance(node.value, str)]
    for path in (package / "templates").glob("*.html"):
        # Of what Jinja computes only the texts.
        page = re.sub(
            r"\{[{%].*?[%}]\}", lambda m: " ".join(m[0].split('"')[1::2]), path.read_text()
        )
        texts.append((path.name, page))
    found = [(file, key) for file, text in texts for key in name.findall(text)]
    assert len(found) > 200, "or the names were not found"
    wrong = [
        (file, key)
        for file, key in found
        if key.rsplit(".")[-1] not in files
        and not any(known == key or known.startswith(f"{key}.") for known in keys)
    ]
    assert wrong == []
