"""The code of docs/extending.md, in a folder of its own: trained with, evaluated and predicted."""

import ast
import csv
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import kerasseg
from kerasseg.config.layouts import LAYOUTS, NIFTI
from kerasseg.config.load import differences, dump_experiment, load_experiment
from kerasseg.errors import UserError
from kerasseg.run import read_run
from tests.conftest import SHAPE

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"```(?:python|yaml)\n(# (\S+)\n.*?)```", re.DOTALL)
TINY = (
    "pipeline.patch_size=[8,16,12]",
    "pipeline.patches_per_volume=1",
    "training={epochs: 1, gradient_accumulation: 1}",
    "records.workers=1",
    "split={validation: 0.3, test: 0.3}",
    "evaluation={overlap: 0.0, overlays: 0}",
    "metrics.resamples=100",
)


def write_blocks(folder):
    """Write each block of the page into the file of its first line; returns their texts."""
    text = (ROOT / "docs" / "extending.md").read_text()
    blocks = {name: block for block, name in BLOCK.findall(text)}
    for name, block in blocks.items():
        (folder / name).write_text(block)
    return blocks


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """A folder with the page's files, in which Python looks for modules and the test runs."""
    write_blocks(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]


def test_somebody_trains_with_parts_of_their_own(own_folder, phantoms, monkeypatch, capsys):
    for folder, numbers in (("scans", range(4)), ("new", (4,))):
        (own_folder / folder).mkdir()
        for number in numbers:
            image, label = phantoms[number]
            np.savez(own_folder / folder / f"case_{number}.npz", image=image, label=label)
    run = kerasseg.train("mine.yaml", TINY).resolve()
    (row, *_) = list(csv.DictReader((run / "metrics.csv").open()))
    assert {"extent_error_mm_WT", "dice_WT"} <= set(row)
    assert read_run(run).load_network().name == "plain"
    page = (run / "report.html").read_text()
    assert "Extent error mm" in page

    import my_figure
    import my_verb

    my_figure.draw_dice_by_extent(run, own_folder / "figure.png")
    assert (own_folder / "figure.png").stat().st_size > 5000
    capsys.readouterr()
    my_verb.volumes(run)
    assert re.search(r"case_\d WT: \d+\.\d\d mL, predicted", capsys.readouterr().out)
    assert kerasseg.predict(run, own_folder / "new", "out").written == ["case_4"]
    found = kerasseg.load(run).predict(own_folder / "new" / "case_4.npz")
    assert found.label.shape == SHAPE

    # Elsewhere, without the modules.
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(own_folder)])
    monkeypatch.chdir("/")
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]
    sentence = r"config\.yaml: data\.layout: my_layout\.NPZ cannot be imported .*PYTHONPATH"
    with pytest.raises(UserError, match=sentence):
        kerasseg.load(run)


def test_the_page_is_short_and_names_what_the_config_names():
    text = (ROOT / "docs" / "extending.md").read_text()
    blocks = {name: block for block, name in BLOCK.findall(text)}
    assert len(blocks) == 8
    for name, block in blocks.items():
        assert sum(bool(line.strip()) for line in block.splitlines()) < 30, name


def test_a_config_keeps_what_it_names_by_import_paths(own_folder):
    (own_folder / "scans").mkdir()
    experiment = load_experiment("mine.yaml")
    (own_folder / "again.yaml").write_text(dump_experiment(experiment))
    assert load_experiment("again.yaml") == experiment
    transform = experiment.augment.transforms[1].transform
    assert (transform.path, transform.p) == ("my_transform.darken", 0.5)
    assert transform.options == {"least": 0.7}
    assert experiment.data.modalities == ("flair", "t1", "t1ce", "t2")
    lighter = load_experiment(
        "mine.yaml", ["loss=[{dice: 0.5}, {my_loss.log_cosh_dice: 0.25, smooth: 2.0}]"]
    )
    (changed,) = differences(experiment, lighter, ["loss"])
    assert changed.startswith("loss: [") and changed.count("my_loss.log_cosh_dice") == 2


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.layout=brats", 'data.layout: found "brats", expected one of phantom, brats_nifti'),
        ("data.layout=gone.NPZ", "data.layout: gone.NPZ cannot be imported"),
        ("data.layout=os.path.join", "expected a kerasseg.config.layouts.Layout"),
        ("model.network=vnet", 'model.network: found "vnet", expected one of unet'),
        ("model.options={width: 8}", "model.options is for a network that model.network gives by"),
        ("loss=[{my.loss: -1}]", "loss: the weight of my.loss is -1, expected a number of at leas"),
        ("loss=[{my.loss: a}]", 'the weight of my.loss is "a"'),
        ("augment.transforms=[{my.blur: 3}]", "expected one import path with its options, such as"),
        ("augment.transforms=[{my.blur: {p: 2}}]", "less than or equal to 1 for p"),
        ("metrics.further=[{my.f: {}}, {your.f: {}}]", "give each function a name of its own"),
        ("metrics.further=[extent]", 'metrics.further: found "extent", expected one import path'),
    ],
)
def test_what_a_config_refuses(override, expected):
    with pytest.raises(UserError, match=r"^override: ") as raised:
        load_experiment(None, [override])
    assert expected in str(raised.value)


def test_functions_are_looked_for_before_anything_is_converted(own_folder):
    from kerasseg.evaluation.scores import metric_settings
    from kerasseg.models.build import build_network
    from kerasseg.training.user_classes import check_functions

    def refused(check, *overrides):
        with pytest.raises(UserError) as raised:
            check(load_experiment(None, overrides))
        return str(raised.value)

    assert "loss: my_loss.gone cannot be imported" in refused(
        check_functions, "loss=[{my_loss.gone: 1}]"
    )
    assert "unexpected keyword argument 'smoth'" in refused(
        check_functions, "loss=[{my_loss.log_cosh_dice: 1, smoth: 2}]"
    )
    assert "augment.transforms: my_transform.darken cannot be called" in refused(
        check_functions, "augment.transforms=[{my_transform.darken: {most: 1}}]"
    )
    assert "metrics.further: my_metric.gone cannot be imported" in refused(
        lambda experiment: metric_settings(experiment.metrics),
        "metrics.further=[{my_metric.gone: {}}]",
    )
    (own_folder / "my_none.py").write_text("def build(settings, channels): ...\n")
    assert "returned None" in refused(
        lambda experiment: build_network(experiment.model, 4), "model.network=my_none.build"
    )


def test_no_other_file_compares_the_name_of_a_layout():
    names = set(LAYOUTS) - {"nifti", "phantom"}
    table = ROOT / "kerasseg" / "config" / "layouts.py"
    found = []
    for path in sorted((ROOT / "kerasseg").rglob("*.py")):
        text = path.read_text()
        if path == table or not any(f'"{name}"' in text for name in LAYOUTS):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Compare):
                constants = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}
                about = "layout" in ast.unparse(node)
                if constants & names or (about and constants & set(LAYOUTS)):
                    found.append(f"{path.name}:{node.lineno}")
    assert not found
    assert {facts.suffixes for facts in LAYOUTS.values()} > {NIFTI}
    for facts in LAYOUTS.values():
        for name in ("discover", "inputs", "label_ids"):
            assert getattr(facts, name) is None or callable(facts.function(name))


def test_import_stays_light(python):
    code = "import sys, kerasseg; print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    done = subprocess.run(
        [python, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == "[]\n"
